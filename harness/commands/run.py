"""``harness run``: distil a student, evaluate it, record it."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness import answered, registry, safe_read
from harness.commands import arguments
from harness.records import default_folder

if TYPE_CHECKING:
    from harness.records.record import Record
    from harness.records.store import Store
    from harness.request import Plan, RunRequest


def add(commands: argparse._SubParsersAction) -> None:
    command = arguments.command(
        commands,
        "run",
        "distil a student, evaluate it, record it",
        about="Distils a student with each method, evaluates it on each task, and writes one record per method, seed\n"
        "and task. Recorded results are returned; interrupted runs continue.",
        examples=(
            "harness run -m gkd -t amc23",
            "harness run -m gkd,vcrd -t amc23,humaneval -s 0 1 2 --control",
            "harness run -m kd -t gsm8k@real --recipe my.toml --dry-run",
        ),
    )
    add_request(command)
    command.add_argument(
        "--again", action="store_true", help="run again even if the same is recorded; both records are kept"
    )
    command.add_argument(
        "--resume",
        metavar="ID",
        help="continue this training or run only: a command that differs from the original one is refused, with the "
        "differences (without --resume the same command continues by itself)",
    )
    command.add_argument(
        "--dry-run", action="store_true", help="print what is recorded, what would run, and its estimated cost"
    )
    arguments.names(
        command,
        "--track",
        metavar="TRACKER",
        help="stream the training to tensorboard, wandb, …: any tracker of accelerate's",
    )
    arguments.results(command)
    arguments.sandbox(command)
    command.set_defaults(command=call)


def add_request(command: argparse.ArgumentParser) -> None:
    """Declares the arguments that a run and a sweep share."""
    arguments.names(
        command, "-m", "--method", metavar="M", kind="methods", help="name, name@variant or file.py; one or several"
    )
    arguments.names(
        command,
        "-t",
        "--task",
        metavar="T",
        kind="tasks",
        help="name, name@micro, name@real or file.py; one or several",
    )
    recipe = command.add_argument(
        "--recipe",
        metavar="NAME|FILE.toml",
        help="models, data and length of training (default: micro)",
    )
    arguments.offer(recipe, "recipes")
    command.add_argument("--student", metavar="ID|DIR", help="student instead of the recipe's")
    command.add_argument("--teacher", metavar="ID|DIR", help="teacher instead of the recipe's")
    arguments.seeds(command, help="one or more training seeds (default: 0)")
    arguments.values(
        command,
        "--set",
        dest="settings",
        metavar="KEY=VALUE",
        help="change settings: method.beta=0.3, training.steps=50, evaluation.limit=20, …; repeatable",
    )
    command.add_argument(
        "--judge",
        metavar="JUDGE",
        help="judge of instruction tasks: openai:MODEL[@URL], hf:DIR, replay:FILE; the first two take settings "
        "after commas (key_env=NAME,max_tokens=4096)",
    )
    arguments.protocol(command)
    command.add_argument("--device", metavar="DEVICE", help="cpu, cuda, cuda:N or mps (default: cuda if there is one)")
    command.add_argument(
        "--control",
        action="store_true",
        help="also run the shuffled-weight control of every method that weights tokens",
    )


def call(args: argparse.Namespace) -> str:
    from harness.progress import LOADING, Reporter

    arguments.accept_sandbox(args)
    question = answered.question_of(args)
    if question is not None and (known := question.answer()) is not None:
        messages, records = known
        for line in (*messages, *(answered.notice(record["run_id"]) for record in records)):
            safe_read.aside(line)
        return _printed(args, records)
    check_names(args)
    with Reporter() as reporter, contextlib.ExitStack() as listening:
        reporter.progress(*LOADING)  # print this before the imports that take seconds
        if question is not None:
            listening.enter_context(question.listening())
        from harness.launch import processes
        from harness.plan import prepare

        plan = prepare(request_of(args))
        listening.close()
        from harness import request, resume
        from harness.estimate import memory_check

        unread = request.unused_options(plan, sandbox=args.sandbox)
        if args.resume is not None and processes.leads():  # followers do not read the results folder
            resume.check(plan, args.resume)
        if not args.dry_run:
            memory_check.check(plan, safe_read.aside)
        if processes.leads():
            arguments.warn(unread)
        if args.dry_run:
            return _intended(plan, args.json)
        from harness.plan import introduction
        from harness.run import run

        records = run(plan, reporter.progress, reporter.announce)
    if not processes.leads():
        return ""
    if question is not None:
        question.keep(plan, [*(f"warning: {line}" for line in unread), *introduction(plan)], records)
    return _printed(args, records)


def _printed(args: argparse.Namespace, records: Sequence[Record]) -> str:
    """The output of a run for its records; their folder goes to stderr."""
    from harness.records.store import Store

    if args.json:
        return arguments.dump({"records": records})
    store = Store(args.results)
    print(next_steps(store, records), file=sys.stderr)
    return table_of(records, store)


def table_of(records: Sequence[Record], store: Store) -> str:
    """The table of these records only; ``harness table`` includes earlier runs."""
    from harness.leaderboard.table import leaderboard, render

    sections = leaderboard(records, None, store.completions)
    return render(sections, arguments.prose_format(), width=arguments.width())


def next_steps(store: Store, records: Sequence[Record]) -> str:
    """The folder of the records, and the commands that read them."""
    from harness.leaderboard.labels import name_of

    title = shlex.quote(records[0]["task"])
    folder = "" if str(store.root) == default_folder() else f" --results {shlex.quote(str(store.root))}"
    trained = [
        name for name in dict.fromkeys(name_of(r["method"]) for r in records if r["convention"].get("trained", True))
    ]
    lines = [f"recorded in {store.records_dir}; the table below shows the rows of this command"]
    if len(trained) > 1:
        lines.append(f"  harness compare {trained[0]} {trained[1]} -t {title}{folder}")
    lines += [
        f"  harness table -t {title}{folder}",
        f"  harness show {records[0]['run_id']}{folder}",
        f"  harness board{folder}",
    ]
    return "\n".join(lines)


def check_names(args: argparse.Namespace) -> None:
    """Raises BadInput for a name that is missing or unknown, before what takes seconds to import."""
    registry.known_names(registry.METHODS, args.method)
    registry.known_names(registry.TASKS, args.task)


def request_of(args: argparse.Namespace) -> RunRequest:
    """Builds the request from the arguments of :func:`add_request`."""
    from harness.plan import RunRequest

    return RunRequest(
        methods=args.method,
        tasks=args.task,
        recipe=args.recipe,
        student=args.student,
        teacher=args.teacher,
        seeds=args.seed or [0],
        settings=args.settings,
        results=args.results,
        device=args.device,
        judge=args.judge,
        protocol=args.protocol,
        again=getattr(args, "again", False),
        control=args.control,
        track=getattr(args, "track", ()),
        weights=not getattr(args, "dry_run", False),
    )


def _intended(plan: Plan, as_json: bool) -> str:
    """The output of ``--dry-run``, which trains, generates and writes nothing."""
    from harness.errors import BadInput
    from harness.estimate import memory_check
    from harness.evaluation import measurement
    from harness.training import engine_checks

    engines = engine_checks.engines_in_words(plan.recipe, [training.method for training in plan.trainings])
    cells = [
        {"method": t.label, "seed": t.seed, "task": task.title, "training_id": t.training_id, "recorded": run_id}
        for t, task, run_id in measurement.cells(plan)
    ]
    estimates = memory_check.estimates(plan)
    try:
        memory_check.check(plan, lambda line: None)
        refusal = None
    except BadInput as error:
        refusal = str(error)
    if as_json:
        numbers = {
            label: dataclasses.asdict(one) | {"peak": one.peak, "seconds": one.seconds}
            for label, one in estimates.items()
        }
        messages = {"told": [*plan.pair.notes, *engines], "warnings": [*plan.pair.warnings, *plan.data.warnings]}
        return arguments.dump({"runs": cells, "estimates": numbers, "refusal": refusal} | messages)
    lines = [*(f"warning: {w}" for w in (*plan.pair.warnings, *plan.data.warnings)), *plan.pair.notes, *engines]
    lines += [""] if lines else []
    for cell in cells:
        state = f"recorded as {cell['recorded']}" if cell["recorded"] else "to do"
        lines.append(f"{cell['method']} on {cell['task']}, seed {cell['seed']}: {state}")
    for label, one in estimates.items():
        lines += ["", f"training {label}", *memory_check.describe(one)]
    return "\n".join([*lines, *(["", f"would be refused: {refusal}"] if refusal else [])])
