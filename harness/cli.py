"""The command line: words to calls, results to stdout, everything else to stderr. No other logic lives here.

Exit codes: 0 done, 2 bad input (nothing was written), 1 failed while working (what is done is kept).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from harness import __version__
from harness.errors import BadInput, RunFailed


class _Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are one line."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code. Never raises for bad input or failed work."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # the bars of libraries; ours are in harness.progress
    try:
        chosen = parser().parse_args(arguments)
        with contextlib.redirect_stdout(sys.stderr):  # libraries print; stdout is for results
            printed = chosen.command(chosen)
        if printed:
            print(printed)
        return chosen.exit_code
    except BadInput as error:
        print(f"harness: {_one_line(error)}", file=sys.stderr)
        return 2
    except RunFailed as error:
        print(f"harness: failed: {_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("harness: interrupted; what is finished is kept, the same command goes on", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        print(f"harness: failed: {error.strerror or error}{place}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """The whole surface; ``tests/test_cli.py`` holds it still."""
    top = _Parser(prog="harness", description="Distil, evaluate, record and tabulate with one command.")
    top.set_defaults(exit_code=0)
    top.add_argument("--version", action="version", version=f"harness {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=_Parser)

    run = commands.add_parser("run", help="distil a student, evaluate it, record it")
    run.add_argument(
        "--method", action="append", default=[], metavar="M", help="name, name@variant or file.py; repeatable"
    )
    run.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="T",
        help="name, name@micro, name@real or file.py; repeatable",
    )
    run.add_argument(
        "--recipe",
        default="micro",
        metavar="NAME|FILE.toml",
        help="who teaches whom, on what, how long (default: micro)",
    )
    run.add_argument("--student", metavar="ID|DIR", help="overrides the recipe's student")
    run.add_argument("--teacher", metavar="ID|DIR", help="overrides the recipe's teacher")
    run.add_argument(
        "--seed", action="append", nargs="+", type=_seed, metavar="N", help="one or more seeds (default: 0)"
    )
    run.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="KEY=VALUE",
        help="method.beta=0.3, training.steps=50, evaluation.limit=20, …; repeatable",
    )
    run.add_argument("--judge", metavar="JUDGE", help="openai:MODEL[@URL], hf:DIR, replay:FILE: for instruction tasks")
    run.add_argument(
        "--protocol", metavar="NAME", help="a published protocol of the tasks; harness show task T lists them"
    )
    run.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:N or mps (default: cuda if there is one)")
    run.add_argument("--again", action="store_true", help="run anew even if the same is recorded; both are kept")
    _shared(run)
    run.set_defaults(command=_run)

    listing = commands.add_parser("list", help="what there is: methods, tasks, recipes")
    listing.add_argument("kind", choices=("methods", "tasks", "recipes"))
    listing.add_argument("--json", action="store_true", help="JSON on stdout")
    listing.set_defaults(command=_list)

    show = commands.add_parser("show", help="a record; or: show method NAME, show task NAME, show recipe NAME")
    show.add_argument("what", nargs="+", metavar="RECORD|RUN_ID", help="a record file, a run id or its beginning")
    _shared(show)
    show.set_defaults(command=_show)

    grade = commands.add_parser("grade", help="grade stored completions again; needs no model")
    grade.add_argument("--task", required=True, metavar="T")
    grade.add_argument(
        "--samples", required=True, metavar="FILE", help="JSON lines of completions, ours or another tool's"
    )
    grade.add_argument("--judge", metavar="JUDGE", help="for instruction tasks")
    grade.add_argument("--protocol", metavar="NAME", help="a published protocol; harness show task T lists them")
    grade.add_argument("--json", action="store_true", help="JSON on stdout")
    grade.set_defaults(command=_grade)

    check = commands.add_parser("check", help="grade the graders: golds must pass, wrong answers and traps must not")
    check.add_argument("--task", action="append", default=[], metavar="T", help="only these tasks; repeatable")
    check.add_argument("--json", action="store_true", help="JSON on stdout")
    check.set_defaults(command=_check)

    table = commands.add_parser("table", help="the leaderboard of the recorded results")
    table.add_argument("--task", action="append", default=[], metavar="T", help="only these tasks; repeatable")
    table.add_argument("--format", default=None, choices=("md", "csv", "json", "latex", "html"), help="default: md")
    _shared(table)
    table.set_defaults(command=_table)
    return top


def _shared(command: argparse.ArgumentParser) -> None:
    where = os.environ.get("HARNESS_RESULTS", "results")
    command.add_argument(
        "--results", type=Path, default=Path(where), metavar="DIR", help=f"results folder (default: {where})"
    )
    command.add_argument("--json", action="store_true", help="JSON on stdout, everything else on stderr")


def _seed(word: str) -> int:
    if not word.isdecimal() or int(word) >= 2**31:
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number from 0 to 2147483647")
    return int(word)


def _run(chosen: argparse.Namespace) -> str:
    from harness.plan import Request, prepare
    from harness.progress import Reporter

    seeds = [seed for group in chosen.seed or [[0]] for seed in group]
    plan = prepare(
        Request(
            methods=chosen.method,
            tasks=chosen.task,
            recipe=chosen.recipe,
            student=chosen.student,
            teacher=chosen.teacher,
            seeds=seeds,
            settings=chosen.settings,
            results=chosen.results,
            device=chosen.device,
            judge=chosen.judge,
            protocol=chosen.protocol,
            again=chosen.again,
        )
    )
    from harness.run import run

    with Reporter() as reporter:
        records = run(plan, reporter.progress, reporter.announce)
    if chosen.json:
        return _dump({"records": records})
    from harness.leaderboard.table import leaderboard, render

    titles = [task.title for task in plan.tasks]
    return render(leaderboard(plan.store.all()[0], titles, plan.store.completions), "md")


def _list(chosen: argparse.Namespace) -> str:
    from harness import listing

    rows = listing.rows(chosen.kind)
    return _dump(rows) if chosen.json else listing.text(chosen.kind, rows)


def _show(chosen: argparse.Namespace) -> str:
    from harness import listing

    if len(chosen.what) == 2 and chosen.what[0] in ("method", "task", "recipe"):
        card = listing.card(*chosen.what)
        return _dump(card) if chosen.json else listing.card_text(card)
    if len(chosen.what) != 1:
        raise BadInput("show takes a record, or: method NAME, task NAME, recipe NAME")
    from harness.records.store import Store

    record = Store(chosen.results).get(chosen.what[0])
    return _dump(record) if chosen.json else listing.record_text(record)


def _grade(chosen: argparse.Namespace) -> str:
    from harness.evaluation.grade import grade

    outcome = grade(chosen.task, Path(chosen.samples), chosen.judge, chosen.protocol)
    for warning in outcome["warnings"]:
        print(f"warning: {warning}", file=sys.stderr)
    if chosen.json:
        # A lone surrogate in an answer is no UTF-8; here it becomes its JSON escape.
        return _dump({"records": [outcome]}).encode("utf-8", "backslashreplace").decode("utf-8")
    counts, (low, high) = outcome["counts"], outcome["interval"]
    return (
        f"{outcome['task']}: {outcome['score']:.4f} [{low:.4f}, {high:.4f}] {outcome['metric']}, "
        f"{counts['correct']:g} of {counts['total']}, {counts['errors']} errors"
    )


def _check(chosen: argparse.Namespace) -> str:
    from harness.evaluation import check
    from harness.progress import Reporter

    with Reporter() as reporter:
        found = check.check(chosen.task, reporter.progress)
    chosen.exit_code = int(not check.green(found))
    return _dump(check.as_json(found)) if chosen.json else check.text(found)


def _table(chosen: argparse.Namespace) -> str:
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


def _dump(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())
