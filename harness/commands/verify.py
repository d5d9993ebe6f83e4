"""``harness verify``: run a recorded row again and compare the scores."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.commands import arguments


def add(commands: argparse._SubParsersAction) -> None:
    command = arguments.command(
        commands,
        "verify",
        "run a recorded row again and compare (exit 1: differs by more than seeds explain)",
        about="Runs a recorded row again and compares the two scores.",
        examples=(
            "harness verify RUN_ID",
            "harness verify RUN_ID --grade-only",
            "harness verify RUN_ID --work again/ --json",
        ),
    )
    run = command.add_argument("run_id", metavar="RUN_ID", help="a run id, its beginning, or a record file")
    arguments.offer(run, "runs")
    command.add_argument(
        "--grade-only", action="store_true", help="grade the stored completions again; trains and generates nothing"
    )
    command.add_argument(
        "--work",
        type=Path,
        metavar="DIR",
        help="keep the second run here and resume from it (default: a temporary folder)",
    )
    arguments.replacements(command)
    arguments.results(command)
    arguments.sandbox(command)
    command.set_defaults(command=call)


def call(args: argparse.Namespace) -> str:
    from harness.progress import Reporter
    from harness.records.store import Store
    from harness.rerun import verify

    arguments.accept_sandbox(args)
    store = Store(args.results)
    record = store.get(args.run_id)
    with Reporter() as reporter:
        if args.grade_only:
            report = verify.grade_again(record, store, arguments.replacements_of(args), args.work)
        else:
            report = verify.run_again(
                record, store, arguments.replacements_of(args), args.work, reporter.progress, reporter.announce
            )
    args.exit_code = 0 if report.holds else 1
    if args.json:
        return arguments.dump(verify.as_json(report))
    return arguments.fitted(verify.in_words(report))
