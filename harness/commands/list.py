"""``harness list``: the methods, tasks and recipes."""

from __future__ import annotations

import argparse

from harness.commands import arguments


def add(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("list", help="what there is: methods, tasks, recipes, judges, signals, metrics")
    command.add_argument("kind", choices=("methods", "tasks", "recipes", "judges", "signals", "metrics"))
    command.add_argument("--json", action="store_true", help="JSON on stdout")
    command.set_defaults(command=call)


def call(chosen: argparse.Namespace) -> str:
    from harness import show

    rows = show.rows(chosen.kind)
    return arguments.dump(rows) if chosen.json else show.text(chosen.kind, rows)
