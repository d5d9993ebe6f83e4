"""``harness table``: the leaderboard of the recorded results."""

from __future__ import annotations

import argparse
import sys

from harness.commands import words
from harness.errors import BadInput


def add(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("table", help="the leaderboard of the recorded results")
    command.add_argument("--task", action="append", default=[], metavar="T", help="only these tasks; repeatable")
    command.add_argument("--format", default=None, choices=("md", "csv", "json", "latex", "html"), help="default: md")
    words.results(command)
    command.set_defaults(command=call)


def call(chosen: argparse.Namespace) -> str:
    from harness.leaderboard.table import leaderboard, render
    from harness.records.store import Store

    store = Store(chosen.results)
    records, warnings = store.all()
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    if not records:
        raise BadInput(f"no records in {chosen.results}; harness run makes them, --results names another folder")
    sections = leaderboard(records, chosen.task or None, store.completions)
    return render(sections, "json" if chosen.json else chosen.format or "md")
