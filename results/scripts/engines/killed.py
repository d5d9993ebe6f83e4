"""Kills the vLLM server of a training in the middle: it must come back with the student's weights, and the run go on.

    python -m results.scripts.engines.killed [--steps 8] [--at 3 6] [--out FILE.md]

gkd on the micro world. The gap of every step shows which weights the server had: after a start with other weights than
those of the step it would be thousands of times larger.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from harness import plan, students
from harness.models import engine_choice, vllm_server
from harness.plan import RunRequest
from results.scripts.real import page

ROUNDING = 1e-3  # nats


def main() -> int:
    known = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known.add_argument("--steps", type=int, default=8)
    known.add_argument("--at", type=int, nargs="*", default=[3, 6])
    known.add_argument("--out", type=Path)
    chosen = known.parse_args()
    killed = []

    def progress(stage: str, done: int, total: int, details: str) -> None:
        if stage == "train" and done in chosen.at and done not in killed:
            killed.append(done)
            for server in list(vllm_server.started):
                os.killpg(server.process.pid, signal.SIGKILL)

    with TemporaryDirectory() as folder:
        settings = ("rollout.engine=vllm", f"training.steps={chosen.steps}")
        made = plan.prepare(RunRequest(["gkd"], ["amc23@micro"], settings=settings, results=Path(folder)))
        result = students.train_run(made, made.trainings[0], progress)
    lines = ["| step | killed after it | seconds | mean gap | largest gap |", "| ---: | :---: | ---: | ---: | ---: |"]
    for row in result.curve:
        mark = "yes" if row["step"] in killed else ""
        gaps = [f"{row[name]:.1e}" if name in row else "" for name in ("engine_gap_mean", "engine_gap_max")]
        lines.append(f"| {row['step']} | {mark} | {row['seconds']:.0f} | {gaps[0]} | {gaps[1]} |")
    restarts, worst = result.engine["restarts"], result.engine["gap_max"]
    lines += [
        "",
        f"Restarts: {restarts}; largest gap of the run: {worst:.1e} nats (at most {ROUNDING:.0e} is accepted).",
    ]
    about = (
        f"Written by `python -m results.scripts.engines.killed`: vLLM {engine_choice.version('killed')} on CPU cores; "
    )
    about += "the whole process group of the server is killed with SIGKILL. A step that sampled nothing has no gap."
    page.show("A killed server comes back", about, lines, chosen.out)
    return 0 if restarts == len(killed) == len(chosen.at) and worst <= ROUNDING else 1


if __name__ == "__main__":
    sys.exit(main())
