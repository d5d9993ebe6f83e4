"""``harness board``: the results as a static site."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness import safe_read
from harness.commands import arguments
from harness.errors import BadInput


def add(commands: argparse._SubParsersAction) -> None:
    command = arguments.command(
        commands,
        "board",
        "write the results as a static site that opens from disk",
        about="Writes the results as a website that opens from disk and works without a network.",
        examples=("harness board --open", "harness board --results results/micro --out site/", "harness board --serve"),
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="output folder (default: board in the results folder)")
    command.add_argument("--open", action="store_true", help="open the board in a browser")
    command.add_argument(
        "--serve", nargs="?", type=int, const=8000, metavar="PORT",
        help="serve the board to this machine until Ctrl-C (default port: 8000)",
    )  # fmt: skip
    command.add_argument(
        "--no-questions", action="store_true",
        help="leave out prompts and references, which keep the benchmark's licence; for a board that you publish",
    )  # fmt: skip
    arguments.results(command)
    command.set_defaults(command=call)


def call(args: argparse.Namespace) -> str:
    if args.serve is not None and not 0 <= args.serve < 65536:
        raise BadInput(f"--serve {args.serve}: a port is between 0 and 65535")
    from harness.progress import Reporter
    from harness.records import reported
    from harness.records.store import Store
    from harness.reports.board import site

    out = args.out or args.results / "board"
    papers = reported.papers(args.results)
    with Reporter() as reporter:
        built = site.build(Store(args.results), out, papers, reporter.progress, not args.no_questions)
    safe_read.warn(built.warnings)
    front = out / "index.html"
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    if args.serve is not None:
        from harness.reports.board import site

        site.serve_forever(out, args.serve, show=args.open)
    elif args.open:
        import webbrowser

        webbrowser.open(front.resolve().as_uri())
    facts = {"index": str(front), "pages": built.pages, "reused": built.reused, "bytes": size}
    if args.json:
        return arguments.dump(facts | {"warnings": built.warnings})
    return f"{front}  ({built.pages} pages, {size / 1e6:.1f} MB; {built.reused} files unchanged since the last build)"
