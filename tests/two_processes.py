"""Every method on two gloo processes, set beside one: the same curve, weights, costs and state.

    python tests/two_processes.py [--table FILE.md]

prints the table, and writes it. Started once for all methods, since what takes time is to start.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from conftest import write_prompts
from tiny_runs import Result, distinct, make, pair, result


def on_two(models, prompts: Path, folder: Path, timeout: float = 500) -> tuple[dict[str, Result], list[dict]]:
    """Results of every distinct label by the first of two processes, and every process' states by label."""
    with contextlib.closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--rank", *map(str, models), str(prompts), str(folder)]
    started = [
        subprocess.Popen(
            command,
            env=os.environ | shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.DEVNULL,
            stderr=(folder / f"{rank}.log").open("w"),
        )
        for rank in range(2)
    ]
    try:
        codes = [process.wait(timeout) for process in started]
    finally:
        for process in started:
            process.kill()
    if any(codes):
        raise RuntimeError("\n".join((folder / f"{rank}.log").read_text()[-3000:] for rank in range(2)))
    states = [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]
    found = torch.load(folder / "results.pt", weights_only=True)
    return {label: Result(**fields) for label, fields in found.items()}, states


def _rank(student: str, teacher: str, prompts: str, folder: str) -> None:
    rank = int(os.environ["RANK"])
    results, states = {}, {}
    for label in distinct():
        job = make(label, (student, teacher), Path(prompts), Path(folder), name=f"two-{rank}")
        found = result(job)
        results[label] = vars(found)
        states[label] = {"state": found.state, "weights": float(found.weights.double().square().sum())}
    (Path(folder) / f"{rank}.json").write_text(json.dumps(states))
    if rank == 0:
        torch.save(results, Path(folder) / "results.pt")
    torch.distributed.destroy_process_group()


def table(one: dict[str, Result], two: dict[str, Result]) -> str:
    """Markdown: how far apart one and two processes end, per method."""
    rows = ["| method | max abs. difference of the loss | of a weight |", "|---|---|---|"]
    for label in one:
        loss = max(abs(a - b) for a, b in zip(one[label].losses, two[label].losses, strict=True))
        weight = float((one[label].weights - two[label].weights).abs().max())
        rows.append(f"| {label} | {loss:.1e} | {weight:.1e} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rank", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--table", type=Path)
    chosen = parser.parse_args()
    if chosen.rank:
        return _rank(*chosen.rank)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        models = pair(folder)
        prompts = write_prompts(folder / "prompts.jsonl")
        one = {label: result(make(label, models, prompts, folder, name="one")) for label in distinct()}
        found = table(one, on_two(models, prompts, folder)[0])
    words = (
        "# Two processes equal one\n\nThree optimizer steps of six prompts on random two-layer models (AdamW, learning "
        "rate 1e-3, float32), by one process and by two (gloo, CPU).\nWritten by `python tests/two_processes.py "
        f"--table {chosen.table}`.\n\n{found}"
    )
    print(words)
    if chosen.table:
        chosen.table.parent.mkdir(parents=True, exist_ok=True)
        chosen.table.write_text(words, "utf-8")


if __name__ == "__main__":
    main()
