"""``harness compare``: whether one method differs from another, in a sentence."""

from __future__ import annotations

import argparse

from harness import safe_read
from harness.commands import arguments
from harness.leaderboard import ALL, DEFAULT_UNIT, UNITS, VIEWS


def add(commands: argparse._SubParsersAction) -> None:
    command = arguments.command(
        commands,
        "compare",
        "test whether method B differs from method A, and what would settle it",
        about="Tests whether method B differs from A: difference, 95 % interval, p-value, and what would settle it.",
        examples=(
            "harness compare gkd vcrd",
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
        help="tasks to compare on, p Holm-adjusted over them (default: all that both have)",
    )
    arguments.protocol_of_records(command)
    command.add_argument(
        "--view",
        choices=VIEWS,
        default=ALL,
        help="if several rows have one name, compare the two of equal steps, or of equal compute",
    )
    command.add_argument("--cost", choices=UNITS, help="the unit of --view compute (default: flops)")
    arguments.results(command)
    command.set_defaults(command=call)


def call(args: argparse.Namespace) -> str:
    from harness.leaderboard.compare import comparison_as_json, comparison_in_words
    from harness.leaderboard.equal_compute import View
    from harness.leaderboard.together import over_tasks
    from harness.records.store import Store

    arguments.check_cost(args)
    store = Store(args.results)
    records, warnings = store.all()
    safe_read.warn(warnings)
    view = View(args.view, args.cost or DEFAULT_UNIT)
    found = over_tasks(records, args.a, args.b, args.task or None, store.completions, args.protocol, view)
    for line in found.left_out:
        safe_read.aside(line)
    whole = found.together  # None unless the problems of several tasks count alike
    if args.json:
        of_tasks = [comparison_as_json(each) for each in found.tasks]
        return arguments.dump({"comparisons": of_tasks, "together": whole and comparison_as_json(whole)})
    # Which rows were taken: one line if it is the same on every task, else one per task.
    for side in (0, 1):
        taken = {each.task: each.taken[side].words() for each in found.tasks}
        same = len(taken) > 1 and len(set(taken.values())) == 1
        for line in set(taken.values()) if same else [f"{task}: {words}" for task, words in taken.items()]:
            safe_read.aside(line)
    for note in dict.fromkeys(note for each in found.tasks for note in each.notes):
        safe_read.aside(f"note: {note}")
    results = found.tasks if whole is None else [*found.tasks, whole]
    return arguments.fitted("\n".join(map(comparison_in_words, results)))
