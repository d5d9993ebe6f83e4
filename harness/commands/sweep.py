"""``harness sweep``: a grid of methods x tasks x seeds, many runs at once, into one results folder."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from typing import TYPE_CHECKING

from harness import safe_read
from harness.commands import arguments
from harness.commands.run import add_request, check_names, next_steps, request_of, table_of

if TYPE_CHECKING:
    from harness.request import Plan
    from harness.sweep.jobs import Executor
    from harness.sweep.sweep import CellResult


def add(commands: argparse._SubParsersAction) -> None:
    command = arguments.command(
        commands,
        "sweep",
        "run a grid of methods, tasks and seeds, many runs at once",
        about="Runs a grid of methods, tasks and seeds, many runs at once, into one results folder.",
        examples=(
            "harness sweep -m kd,gkd -t amc23,humaneval -s 0 1 2",
            "harness sweep -m kd,gkd -t amc23 -s 0 1 --executor ray --workers 8",
            "harness sweep -m gkd -t amc23 --executor slurm --slurm slurm_partition=gpu",
        ),
    )
    add_request(command)
    command.add_argument(
        "--executor", default="local", choices=("local", "ray", "slurm"), help="where to execute runs (default: local)"
    )
    command.add_argument(
        "--workers", type=arguments.count, metavar="N", help="runs at once (default: one per GPU, or per core without)"
    )
    command.add_argument(
        "--retries", type=int, default=2, choices=range(11), metavar="N", help="retries of a failed run (default: 2)"
    )
    command.add_argument(
        "--address", metavar="ADDRESS", help="address of the Ray cluster (default: RAY_ADDRESS, or one on this machine)"
    )
    arguments.values(
        command,
        "--slurm",
        metavar="KEY=VALUE",
        help="settings of submitit: slurm_partition=gpu, timeout_min=600, gpus_per_node=1, …; repeatable",
    )
    command.add_argument("--dry-run", action="store_true", help="list the grid and which of it is recorded")
    arguments.results(command)
    command.set_defaults(command=call)


def call(args: argparse.Namespace) -> str:
    check_names(args)
    from harness import request
    from harness.estimate import memory_check
    from harness.plan import prepare
    from harness.sweep.jobs import cells
    from harness.sweep.sweep import TerminalView, sweep

    plan = prepare(request_of(args))
    unread = request.unused_options(plan)
    grid = cells(plan)
    if args.dry_run:
        arguments.warn(unread)
        return _listed(grid, args.json)
    memory_check.check(plan, safe_read.aside)
    todo = sum(bool(cell.missing) for cell in grid)
    executor = _executor(args, plan, todo)
    arguments.warn(unread)
    logs = args.results / "work" / "sweep"
    safe_read.aside(f"{_many(len(grid), 'cell')}, {todo} to do, {executor.workers} at once; logs in {logs}")
    with TerminalView(len(grid), len(grid) - todo) as view:
        done = sweep(grid, executor, args.retries, logs, view)
    failed = [one for one in done if one.status == "failed"]
    for one in failed:
        log = logs / f"{one.cell.file}.log"
        safe_read.aside(f"failed: {one.cell.label} after {one.attempts} attempts: {one.message} (log: {log})")
    args.exit_code = 1 if failed else 0
    if args.json:
        return arguments.dump({"cells": [_as_json(one) for one in done]})
    if len(failed) == len(done):
        return ""
    records = [plan.store.get(run_id) for one in done for run_id in one.run_ids]
    print(next_steps(plan.store, records), file=sys.stderr)
    return table_of(records, plan.store)


def _executor(args: argparse.Namespace, plan: Plan, todo: int) -> Executor:
    """The requested executor with its workers. Raises BadInput where it is not available."""
    from harness.errors import BadInput
    from harness.sweep.executors import LocalExecutor, cores

    devices = 0
    if plan.device.startswith("cuda"):
        import torch

        devices = torch.cuda.device_count()
    for option, executor in ((args.slurm, "slurm"), (args.address, "ray")):
        if option and args.executor != executor:
            raise BadInput(f"--{'slurm' if executor == 'slurm' else 'address'} belongs to --executor {executor}")
    here = devices or cores()
    workers = args.workers or min(max(todo, 1), here)
    if args.executor == "local":
        if workers > here:
            kind = "GPUs" if devices else "cores"
            arguments.warn([f"{workers} workers share {here} {kind}; each will be slower"])
        return LocalExecutor(workers, devices)
    if args.executor == "ray":
        from harness.sweep.executors import RayExecutor

        return RayExecutor(workers, devices, args.address)
    from harness.sweep.executors import SlurmExecutor

    settings = dict(setting.partition("=")[::2] for setting in args.slurm)
    if not all(settings.values()):
        raise BadInput("--slurm takes KEY=VALUE, for example slurm_partition=gpu")
    return SlurmExecutor(args.workers or max(todo, 1), args.results / "work" / "sweep", settings, devices)


def _listed(grid: list, as_json: bool) -> str:
    if as_json:
        return arguments.dump({"cells": [dataclasses.asdict(cell) for cell in grid]})
    lines = []
    for cell in grid:
        lines += [f"{cell.label}: recorded as {run_id}" for run_id in cell.recorded]
        lines += [f"{cell.label}: {task} to do" for task in cell.missing]
    todo = sum(len(cell.missing) for cell in grid)
    runs = sum(bool(cell.missing) for cell in grid)
    return "\n".join([*lines, "", f"{_many(todo, 'record')} to make in {_many(runs, 'run')}"])


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _as_json(one: CellResult) -> dict:
    facts = {"method": one.cell.method, "seed": one.cell.seed, "status": one.status, "attempts": one.attempts}
    return facts | {
        "run_ids": one.run_ids,
        "seconds": one.seconds,
        "error": one.message if one.status == "failed" else "",
    }
