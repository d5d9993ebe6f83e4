"""A training in which vLLM samples the student, is the teacher and answers the task, beside the same one in process.

    python -m results.scripts.engines.everywhere [--steps 6] [--limit 12] [--out FILE.md]

gkd on the micro world, greedy rollouts and teacher texts, a top-k signal, float32. So both trainings read the same text
as long as no two likeliest tokens are tied, and their losses differ by rounding.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from harness import plan, students
from harness.models import engine_choice
from harness.plan import RunRequest
from harness.run import run
from results.scripts.real import page

ENGINES = tuple(f"{role}.engine=vllm" for role in ("rollout", "teacher", "evaluation"))
SAME = ("training.signal=top-k", "rollout.temperature=0", "teacher_text.temperature=0")
TOLERANCE = 1e-3  # of a loss


def measured(folder: Path, settings: tuple[str, ...]) -> tuple[list[dict[str, Any]], dict[str, Any], float]:
    """The learning curve, the record and the seconds of a run."""
    began = time.monotonic()
    made = plan.prepare(RunRequest(["gkd"], ["amc23@micro"], settings=settings, results=folder))
    (record,) = run(made, lambda *_: None, lambda line: print(line, file=sys.stderr, flush=True))
    facts = students.obtain(made, made.trainings[0], lambda *_: None).facts
    return facts["curve"], record, time.monotonic() - began


def main() -> int:
    known = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known.add_argument("--steps", type=int, default=6)
    known.add_argument("--limit", type=int, default=12)
    known.add_argument("--out", type=Path)
    chosen = known.parse_args()
    settings = (*SAME, f"training.steps={chosen.steps}", f"evaluation.limit={chosen.limit}")
    with TemporaryDirectory() as folder:
        here, own, own_seconds = measured(Path(folder) / "here", settings)
        there, theirs, seconds = measured(Path(folder) / "there", (*settings, *ENGINES))
    lines = ["| step | loss in process | loss with vLLM | largest gap |", "| ---: | ---: | ---: | ---: |"]
    for a, b in zip(here, there, strict=True):
        gap = f"{b['engine_gap_max']:.1e}" if "engine_gap_max" in b else ""
        lines.append(f"| {a['step']} | {a['loss']:.6f} | {b['loss']:.6f} | {gap} |")
    apart = max(abs(a["loss"] - b["loss"]) / abs(a["loss"]) for a, b in zip(here, there, strict=True))
    scores = [100 * record["score"] for record in (own, theirs)]
    lines += [
        "",
        f"Largest relative difference of a loss: {apart:.1e} (at most {TOLERANCE:.0e} is accepted). Accuracy on "
        f"{chosen.limit} problems: {scores[0]:.1f} in process, {scores[1]:.1f} with vLLM. Seconds: {own_seconds:.0f} "
        f"and {seconds:.0f}, most of which are three starts of vLLM.",
    ]
    about = (
        f"Written by `python -m results.scripts.engines.everywhere`: vLLM {engine_choice.version('everywhere')} on CPU "
        "cores samples the student, is the teacher and answers the task; gkd, greedy texts, a top-k signal."
    )
    page.show("vLLM everywhere", about, lines, chosen.out)
    return 0 if apart <= TOLERANCE else 1


if __name__ == "__main__":
    sys.exit(main())
