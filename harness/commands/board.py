"""``harness board``: the results as a static site."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness import safe_read
from harness.commands import arguments


def add(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("board", help="write the results as a static site that opens from disk")
    command.add_argument("--out", type=Path, metavar="DIR", help="output folder (default: board in the results folder)")
    arguments.results(command)
    command.set_defaults(command=call)


def call(chosen: argparse.Namespace) -> str:
    from harness.progress import Reporter
    from harness.records import reported
    from harness.records.store import Store
    from harness.reports.board import site

    out = chosen.out or chosen.results / "board"
    papers = reported.papers(chosen.results)
    with Reporter() as reporter:
        pages, warnings = site.build(Store(chosen.results), out, papers, reporter.progress)
    safe_read.warn(warnings)
    front = out / "index.html"
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    facts = {"index": str(front), "pages": pages, "bytes": size, "warnings": warnings}
    return arguments.dump(facts) if chosen.json else f"{front}  ({pages} pages, {size / 1e6:.1f} MB)"
