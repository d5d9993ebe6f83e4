"""``harness run``: distil a student, evaluate it, record it."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING

from harness.commands import arguments

if TYPE_CHECKING:
    from harness.plan import Plan, RunRequest


def add(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("run", help="distil a student, evaluate it, record it")
    add_request(command)
    command.add_argument("--again", action="store_true", help="run anew even if the same is recorded; both are kept")
    command.add_argument(
        "--resume",
        metavar="ID",
        help="continue this training or run only: a command that differs from the original one is refused, with the "
        "differences (without --resume the same command continues by itself)",
    )
    command.add_argument(
        "--dry-run", action="store_true", help="print what is recorded, what would run, and its estimated cost"
    )
    command.add_argument(
        "--track",
        action="append",
        default=[],
        metavar="TRACKER",
        help="stream the training to tensorboard, wandb, …: any tracker of accelerate's; repeatable",
    )
    arguments.results(command)
    arguments.sandbox(command)
    command.set_defaults(command=call)


def add_request(command: argparse.ArgumentParser) -> None:
    """Declares the arguments that a run and a sweep share."""
    command.add_argument(
        "--method", action="append", default=[], metavar="M", help="name, name@variant or file.py; repeatable"
    )
    command.add_argument(
        "--task",
        action="append",
        default=[],
        metavar="T",
        help="name, name@micro, name@real or file.py; repeatable",
    )
    command.add_argument(
        "--recipe",
        default="micro",
        metavar="NAME|FILE.toml",
        help="models, data and length of training (default: micro)",
    )
    command.add_argument("--student", metavar="ID|DIR", help="overrides the recipe's student")
    command.add_argument("--teacher", metavar="ID|DIR", help="overrides the recipe's teacher")
    command.add_argument(
        "--seed", action="append", nargs="+", type=arguments.seed, metavar="N", help="one or more seeds (default: 0)"
    )
    command.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="KEY=VALUE",
        help="method.beta=0.3, training.steps=50, evaluation.limit=20, …; repeatable",
    )
    command.add_argument(
        "--judge",
        metavar="JUDGE",
        help="of instruction tasks: openai:MODEL[@URL], hf:DIR, replay:FILE; settings of the first two behind commas "
        "(key_env=NAME,max_tokens=4096)",
    )
    command.add_argument(
        "--protocol", metavar="NAME", help="a published protocol of the tasks; harness show task T lists them"
    )
    command.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:N or mps (default: cuda if there is one)")
    command.add_argument(
        "--control",
        action="store_true",
        help="also run the shuffled-weight control of every method that weights tokens",
    )


def call(chosen: argparse.Namespace) -> str:
    from harness.launch import processes
    from harness.plan import prepare
    from harness.progress import Reporter

    arguments.accept_sandbox(chosen)
    plan = prepare(request_of(chosen))
    from harness import resume, unused_options
    from harness.estimate import memory_check

    unread = unused_options.warnings(plan, sandbox=chosen.sandbox)
    if chosen.resume is not None and processes.leads():  # followers do not read the results folder
        resume.check(plan, chosen.resume)
    if not chosen.dry_run:
        memory_check.check(plan, lambda line: print(line, file=sys.stderr))
    if processes.leads():
        arguments.warn(unread)
    if chosen.dry_run:
        return _intended(plan, chosen.json)
    from harness.run import run

    with Reporter() as reporter:
        records = run(plan, reporter.progress, reporter.announce)
    if not processes.leads():
        return ""
    if chosen.json:
        return arguments.dump({"records": records})
    from harness.leaderboard.table import leaderboard, render

    titles = [task.title for task in plan.tasks]
    records, left_out = plan.store.all()
    arguments.warn(left_out)
    return render(leaderboard(records, titles, plan.store.completions), "md")


def request_of(chosen: argparse.Namespace) -> RunRequest:
    """Builds the request from the arguments of :func:`add_request`."""
    from harness.plan import RunRequest

    return RunRequest(
        methods=chosen.method,
        tasks=chosen.task,
        recipe=chosen.recipe,
        student=chosen.student,
        teacher=chosen.teacher,
        seeds=[seed for group in chosen.seed or [[0]] for seed in group],
        settings=chosen.settings,
        results=chosen.results,
        device=chosen.device,
        judge=chosen.judge,
        protocol=chosen.protocol,
        again=getattr(chosen, "again", False),
        control=chosen.control,
        track=getattr(chosen, "track", ()),
    )


def _intended(plan: Plan, as_json: bool) -> str:
    """The output of ``--dry-run``, which trains, generates and writes nothing."""
    from harness.errors import BadInput
    from harness.estimate import memory_check
    from harness.evaluation import measurement

    cells = [
        {"method": t.label, "seed": t.seed, "task": task.title, "training_id": t.training_id, "recorded": run_id}
        for t, task, run_id in measurement.cells(plan)
    ]
    found = memory_check.estimates(plan)
    try:
        memory_check.check(plan, lambda line: None)
        refusal = None
    except BadInput as error:
        refusal = str(error)
    if as_json:
        numbers = {label: dataclasses.asdict(e) | {"peak": e.peak, "seconds": e.seconds} for label, e in found.items()}
        return arguments.dump({"runs": cells, "estimates": numbers, "refusal": refusal})
    lines = []
    for c in cells:
        state = f"recorded as {c['recorded']}" if c["recorded"] else "to do"
        lines.append(f"{c['method']} on {c['task']}, seed {c['seed']}: {state}")
    for label, one in found.items():
        lines += ["", f"training {label}", *memory_check.describe(one)]
    return "\n".join([*lines, *(["", f"would be refused: {refusal}"] if refusal else [])])
