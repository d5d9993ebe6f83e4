"""``harness check``: grade the graders."""

from __future__ import annotations

import argparse

from harness.commands import words


def add(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("check", help="grade the graders: golds must pass, wrong answers and traps must not")
    command.add_argument("--task", action="append", default=[], metavar="T", help="only these tasks; repeatable")
    command.add_argument(
        "--model", metavar="DIR", help="not the graders: whether this model's tokenizer gives back what the tasks write"
    )
    command.add_argument("--json", action="store_true", help="JSON on stdout")
    words.sandbox(command)
    command.set_defaults(command=call)


def call(chosen: argparse.Namespace) -> str:
    from harness.evaluation import check
    from harness.progress import Reporter

    words.accept_sandbox(chosen)
    if chosen.model:
        return _round_trip(chosen)
    with Reporter() as reporter:
        found = check.check(chosen.task, reporter.progress)
    chosen.exit_code = int(not check.green(found))
    return words.dump(check.as_json(found)) if chosen.json else check.text(found)


def _round_trip(chosen: argparse.Namespace) -> str:
    from harness.evaluation import round_trip

    trips = round_trip.check(chosen.model, chosen.task)
    chosen.exit_code = int(any(trip.lost for trip in trips))
    if chosen.json:
        return words.dump({"model": chosen.model, "tasks": [trip.as_json() for trip in trips]})
    return "\n".join(trip.warning or f"{trip.task}: all of {trip.items} items tried come back" for trip in trips)
