"""``harness check``: grade the graders."""

from __future__ import annotations

import argparse

from harness.commands import words


def add(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("check", help="grade the graders: golds must pass, wrong answers and traps must not")
    command.add_argument(
        "--task", action="append", default=[], metavar="T", help="only these tasks, or `notations`; repeatable"
    )
    command.add_argument("--json", action="store_true", help="JSON on stdout")
    words.sandbox(command)
    command.set_defaults(command=call)


def call(chosen: argparse.Namespace) -> str:
    from harness.evaluation import check
    from harness.progress import Reporter

    words.accept_sandbox(chosen)
    with Reporter(line_every=60) as reporter:
        found = check.check(chosen.task, reporter.progress)
    chosen.exit_code = int(not check.green(found))
    return words.dump(check.as_json(found)) if chosen.json else check.text(found)
