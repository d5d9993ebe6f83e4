"""Every method on two gloo processes, whole (DDP) and cut (FSDP), set beside one: curve, weights, costs and state.

    python tests/two_processes.py [--table FILE.md]

prints the table, and writes it. Started once for all methods, since what takes time is to start.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import socket
import tempfile
import time
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from pathlib import Path

import torch
from children import finished, forked
from conftest import disk_not_waited_for, reading_once, write_prompts
from tiny_runs import Result, distinct, make, pair, result

from harness.errors import BadInput
from harness.training import distributed, loop


def part(
    label: str,
    name: str = "two",
    *,
    stop: int | None = None,
    apart: bool = False,
    student: Path | None = None,
    **training,
) -> dict:
    """A training for two processes: in a folder ``name``, one for each if ``apart``, interrupted in step ``stop``."""
    student = None if student is None else str(student)
    return {"label": label, "name": name, "stop": stop, "apart": apart, "student": student, "training": training}


@dataclass(frozen=True)
class Group:
    """Trainings that two processes do in one folder, with the student whole on each (DDP) or ``cut`` over both (FSDP).

    ``parts``: those named "two" are found under their label, others under ``name:label``.
    """

    models: tuple[Path, Path]
    folder: Path
    cut: bool
    parts: Seq[dict]


def on_two(groups: Seq[Group], prompts: Path, timeout: float = 500) -> list[tuple[dict[str, Result], list[dict]]]:
    """For each group the results by the first of two processes, and the states of both; by label.

    A training that ends with BadInput has a state alone. One launch does all groups: to start takes as long as dozens
    of these trainings.
    """
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    home = groups[0].folder
    started = [
        forked(
            functools.partial(_rank, rank, groups, prompts),
            home / f"{rank}.log",
            how="forkserver",
            **shared,
            RANK=str(rank),
            LOCAL_RANK=str(rank),
        )
        for rank in range(2)
    ]
    try:
        codes = [finished(process, timeout) for process in started]
    finally:
        for process in started:
            process.kill()
    if any(codes):
        said = [(home / f"{rank}.log.err").read_text("utf-8", "replace")[-3000:] for rank in range(2)]
        # The rank that lost its peer only says so; what the other one said is the cause, and is printed last.
        order = sorted(range(2), key=lambda rank: "closed by peer" not in said[rank])
        raise RuntimeError("\n".join(f"rank {rank} ended with {codes[rank]}:\n{said[rank]}" for rank in order))
    return [_read(group.folder) for group in groups]


def _read(folder: Path) -> tuple[dict[str, Result], list[dict]]:
    states = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    found = torch.load(folder / "results.pt", weights_only=True)
    return {label: Result(**fields) for label, fields in found.items()}, states


class Stopped(Exception):
    pass


def stopping(step: int | None):
    """A progress function that interrupts a training in ``step``, after it has moved and before it is saved."""

    def progress(stage, done, total, words):
        if stage == "train" and done == step:
            raise Stopped

    return progress


def _rank(rank: int, groups: Seq[Group], prompts: Path) -> None:
    torch.set_num_threads(1)
    with disk_not_waited_for(), reading_once():
        for group in groups:
            # What accelerate's launcher sets for the one kind and leaves out for the other.
            os.environ |= {"ACCELERATE_USE_FSDP": str(group.cut).lower(), "FSDP_VERSION": "2"}
            _do(rank, group, prompts)
    # The first to leave closes its connections, and what the other has not read from them yet is lost with them. So
    # each waits for the file that the other writes after its last exchange.
    while not (groups[-1].folder / f"{1 - rank}.json").exists():
        time.sleep(0.01)
    torch.distributed.destroy_process_group()


def _do(rank: int, group: Group, prompts: Path) -> None:
    """One process's share of a group; leaves its states in the folder, and the first process the results."""
    student, teacher = map(str, group.models)
    results, states, held = {}, {}, []
    hold, load, times = distributed.distribute, loop.load_model, []

    def loading(*args):
        times.append([time.monotonic()])
        return load(*args)

    def distribute(*args):
        held.append(hold(*args))
        times[-1].append(time.monotonic())
        return held[-1]

    loop.load_model, distributed.distribute = loading, distribute
    for one in group.parts:
        key = one["label"] if one["name"] == "two" else f"{one['name']}:{one['label']}"
        name = f"{one['name']}-{rank}" if one["apart"] else one["name"]
        models = (one["student"] or student, teacher)
        job = make(one["label"], models, prompts, group.folder, name=name, **one["training"])
        try:
            found = result(job, stopping(one["stop"]))
        except Stopped:
            continue
        except BadInput as error:
            states[key] = str(error)
            continue
        results[key] = vars(found)
        sizes = [getattr(p, "to_local", lambda p=p: p)().numel() for p in held[-1].module.parameters()]
        share = sum(sizes) / sum(p.numel() for p in held[-1].module.parameters())
        whole = float(found.weights.double().square().sum()) if found.weights.numel() else None
        states[key] = {"state": found.state, "weights": whole, "share": share, "whole_between": times[-1]}
    loop.load_model, distributed.distribute = load, hold
    if rank == 0:
        torch.save(results, group.folder / "results.pt")
    (group.folder / f"{rank}.json").write_text(json.dumps(states))


def table(one: dict[str, Result], two: dict[str, Result], cut: dict[str, Result]) -> str:
    """Markdown: how far from one process two end, per method, with the student whole on each and cut over both."""
    rows = ["| method | DDP: max abs. difference of the loss | of a weight | FSDP: of the loss | of a weight |"]
    rows.append("|---|---|---|---|---|")
    for label in one:
        row = [label]
        for other in (two, cut):
            row.append(max(abs(a - b) for a, b in zip(one[label].losses, other[label].losses, strict=True)))
            row.append(float((one[label].weights - other[label].weights).abs().max()))
        rows.append("| {} | {:.1e} | {:.1e} | {:.1e} | {:.1e} |".format(*row))
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = pair(folder)
        prompts = write_prompts(folder / "prompts.jsonl")
        one = {label: result(make(label, models, prompts, folder, name="one")) for label in distinct()}
        every = [part(label) for label in distinct()]
        groups = [Group(models, folder / f"cut-{cut}", cut, every) for cut in (False, True)]
        for group in groups:
            group.folder.mkdir()
        found = table(one, *(ends for ends, _ in on_two(groups, prompts)))
    words = (
        "# Two processes equal one\n\nThree optimizer steps of six prompts on random two-layer models (AdamW, learning "
        "rate 1e-3, float32), by one process and by two (gloo, CPU).\nDDP: the whole student on each; FSDP: weights, "
        "gradients and moments cut over both.\nWritten by `python tests/two_processes.py "
        f"--table {chosen.table}`.\n\n{found}"
    )
    print(words)
    if chosen.table:
        chosen.table.parent.mkdir(parents=True, exist_ok=True)
        chosen.table.write_text(words, "utf-8")


if __name__ == "__main__":
    main()
