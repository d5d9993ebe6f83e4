"""``harness run``: distil a student, evaluate it, record it."""

from __future__ import annotations

import argparse

from harness.commands import words


def add(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("run", help="distil a student, evaluate it, record it")
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
        help="who teaches whom, on what, how long (default: micro)",
    )
    command.add_argument("--student", metavar="ID|DIR", help="overrides the recipe's student")
    command.add_argument("--teacher", metavar="ID|DIR", help="overrides the recipe's teacher")
    command.add_argument(
        "--seed", action="append", nargs="+", type=words.seed, metavar="N", help="one or more seeds (default: 0)"
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
        "--judge", metavar="JUDGE", help="openai:MODEL[@URL], hf:DIR, replay:FILE: for instruction tasks"
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
    command.add_argument(
        "--track",
        action="append",
        default=[],
        metavar="TRACKER",
        help="stream the training to tensorboard, wandb, …: any tracker of accelerate's; repeatable",
    )
    command.add_argument("--again", action="store_true", help="run anew even if the same is recorded; both are kept")
    words.results(command)
    words.sandbox(command)
    command.set_defaults(command=call)


def call(chosen: argparse.Namespace) -> str:
    from harness.plan import Request, prepare
    from harness.progress import Reporter

    words.accept_sandbox(chosen)
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
            control=chosen.control,
            track=chosen.track,
        )
    )
    from harness.run import run

    with Reporter() as reporter:
        records = run(plan, reporter.progress, reporter.announce)
    if chosen.json:
        return words.dump({"records": records})
    from harness.leaderboard.table import leaderboard, render

    titles = [task.title for task in plan.tasks]
    return render(leaderboard(plan.store.all()[0], titles, plan.store.completions), "md")
