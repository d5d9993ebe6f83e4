"""``harness list``: methods, tasks, recipes, papers, judges, signals, metrics."""

from __future__ import annotations

import argparse

from harness.commands import arguments


def add(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("list", help="methods, tasks, recipes, papers, judges, signals, metrics")
    command.add_argument("kind", choices=("methods", "tasks", "recipes", "papers", "judges", "signals", "metrics"))
    arguments.results(command)
    command.set_defaults(command=call)


def call(chosen: argparse.Namespace) -> str:
    if chosen.kind == "papers":
        from harness.papers import tables
        from harness.records import reported

        found = tables.listing(reported.papers(chosen.results))
        return arguments.dump(found) if chosen.json else tables.listing_text(found)
    from harness import show

    rows = show.rows(chosen.kind)
    return arguments.dump(rows) if chosen.json else show.text(chosen.kind, rows)
