"""``harness board``: the results as a static site."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness import safe_read
from harness.commands import arguments


def add(commands: argparse._SubParsersAction) -> None:
    command = arguments.command(
        commands,
        "board",
        "write the results as a static site that opens from disk",
        about="Writes the results as a website that opens from disk and works without a network.",
        examples=("harness board", "harness board --out site/", "harness board --results results/micro --json"),
    )
    command.add_argument("--out", type=Path, metavar="DIR", help="output folder (default: board in the results folder)")
    arguments.results(command)
    command.set_defaults(command=call)


def call(args: argparse.Namespace) -> str:
    from harness.progress import Reporter
    from harness.records import reported
    from harness.records.store import Store
    from harness.reports.board import site

    out = args.out or args.results / "board"
    papers = reported.papers(args.results)
    with Reporter() as reporter:
        built = site.build(Store(args.results), out, papers, reporter.progress)
    safe_read.warn(built.warnings)
    front = out / "index.html"
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    facts = {"index": str(front), "pages": built.pages, "reused": built.reused, "bytes": size, "warnings": built.warnings}
    return arguments.dump(facts) if args.json else f"{front}  ({built.pages} pages, {size / 1e6:.1f} MB)"
