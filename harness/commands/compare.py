"""``harness compare``: whether one method differs from another, in a sentence."""

from __future__ import annotations

import argparse

from harness import safe_read
from harness.commands import arguments


def add(commands: argparse._SubParsersAction) -> None:
    command = arguments.command(
        commands,
        "compare",
        "test whether method B differs from method A, and what would settle it",
        about="Tests whether method B differs from A: difference, 95 % interval, p-value, and what would settle it.",
        examples=(
            "harness compare gkd vcrd -t amc23",
            "harness compare kd gkd -t amc23,humaneval --view compute",
            "harness compare sft:training.steps=200 kd -t amc23 --json",
        ),
    )
    a = command.add_argument(
        "a", metavar="A", help="a row, named as in a table: NAME, NAME@VARIANT, NAME:training.steps=900"
    )
    b = command.add_argument("b", metavar="B", help="the other row; the difference is B - A")
    arguments.offer(a, "methods")
    arguments.offer(b, "methods")
    arguments.names(
        command,
        "-t",
        "--task",
        metavar="T",
        kind="tasks",
        required=True,
        help="tasks to compare on; p is Holm-adjusted over them",
    )
    arguments.protocol_of_records(command)
    command.add_argument(
        "--view",
        choices=("all", "steps", "compute"),
        default="all",
        help="if several rows have one name, compare the two of equal steps, or of equal compute",
    )
    command.add_argument("--cost", choices=arguments.UNITS, default="flops", help="the unit of --view compute")
    arguments.results(command)
    command.set_defaults(command=call)


def call(args: argparse.Namespace) -> str:
    from harness.leaderboard.compare import compare, comparison_as_json, comparison_in_words
    from harness.leaderboard.equal_compute import View
    from harness.records.store import Store

    store = Store(args.results)
    records, warnings = store.all()
    safe_read.warn(warnings)
    view = View(args.view, args.cost)
    results = compare(records, args.a, args.b, args.task, store.completions, args.protocol, view)
    if args.json:
        return arguments.dump({"comparisons": [comparison_as_json(each) for each in results]})
    for line in dict.fromkeys(f"{each.task}: {side.words()}" for each in results for side in each.taken):
        safe_read.aside(line)
    for note in dict.fromkeys(note for each in results for note in each.notes):
        safe_read.aside(f"note: {note}")
    return arguments.fitted("\n".join(comparison_in_words(each) for each in results))
