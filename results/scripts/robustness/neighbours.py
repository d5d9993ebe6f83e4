"""Hostile programs among honest neighbours: who exhausts something loses its own verdict, and no other program's.

    python -m results.scripts.robustness.neighbours > results/robustness/neighbours.md

Every program of :mod:`results.scripts.robustness.bombs` is graded in one batch with the canonical programs of 30
problems, in its middle, as ``harness grade`` does it: the shared sandbox, its own limits. The problems are generated.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.evaluation.benchmarks import open_task
from harness.sandbox import shared, tier
from harness.types import Completion, Verdict
from results.scripts.grading.fuzz import descendants
from results.scripts.robustness.bombs import BOMBS, KINDS, with_body

TASK = "humaneval@micro"
HONEST = 30
ALL = 99


@dataclass(frozen=True)
class BatchOutcome:
    """``right``: honest programs that passed. ``hostile``: the verdict of the hostile one. ``left``: processes."""

    bomb: str
    right: int
    hostile: Verdict
    seconds: float
    left: int

    @property
    def alone(self) -> bool:
        """Whether the hostile program alone paid, with a verdict of its own."""
        return self.right == HONEST and self.hostile.score == 0.0 and not self.hostile.error


def graded(bomb: str | None) -> tuple[list[Verdict], float]:
    """The verdicts on the honest programs with the hostile one in the middle, and the seconds that they took."""
    task = open_task(TASK)
    problems = [problem.reference for problem in task.items[: HONEST + 1]]
    programs = [problem.prompt + problem.canonical_solution for problem in problems]
    middle = HONEST // 2
    if bomb is not None:
        programs[middle] = with_body(problems[middle].entry_point, BOMBS[bomb])
    completions = [Completion(problem.task_id, 0, "", 0, "stop") for problem in problems]
    began = time.monotonic()
    return task.grade_programs(completions, programs), time.monotonic() - began


def tried(bomb: str, waiting: int) -> BatchOutcome:
    """``waiting``: the processes of the pool, which stay."""
    verdicts, seconds = graded(bomb)
    hostile = verdicts.pop(HONEST // 2)
    return BatchOutcome(bomb, sum(v.score == 1.0 for v in verdicts), hostile, seconds, len(descendants()) - waiting)


def page(outcomes: Sequence[tuple[str, BatchOutcome]], alone: float, walls: str, each: int) -> str:
    rows = [outcome for _, outcome in outcomes]
    paid, limited = sum(outcome.alone for outcome in rows), f" --each {each}" if each < ALL else ""
    lines = [
        "# Hostile programs among 30 honest neighbours",
        "",
        f"`python -m results.scripts.robustness.neighbours{limited}`, {walls}, {TASK}, default limits.",
        f"{paid} of {len(rows)} batches: all {HONEST} honest programs right, the hostile one with its own verdict, 0.",
        f"The batch without a hostile program took {alone:.1f} s. The machine had other work; seconds are no speeds.",
        "",
        "| kind | hostile program | honest ones right | its verdict | seconds | processes left |",
        "|---|---|---:|---|---:|---:|",
    ]
    for kind, o in outcomes:
        reason = " ".join(o.hostile.reason.split())[:90].replace("|", "\\|")
        lines.append(f"| {kind} | {o.bomb} | {o.right}/{HONEST} | {reason} | {o.seconds:.1f} | {max(o.left, 0)} |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None, show: Callable[[str], None] = print) -> int:
    parser = argparse.ArgumentParser(prog="python -m results.scripts.robustness.neighbours")
    parser.add_argument("--each", type=int, default=ALL, help="programs of each kind (default: all)")
    chosen = parser.parse_args(words)
    graded(None)  # computes the expected outputs
    verdicts, alone = graded(None)
    if any(v.score != 1.0 for v in verdicts):
        show("the honest programs do not pass alone")
        return 1
    waiting, outcomes = len(descendants()), []
    for kind, names in KINDS.items():
        for bomb in names[: chosen.each]:
            outcomes.append((kind, tried(bomb, waiting)))
            print(f"{kind}: {bomb}, {outcomes[-1][1].seconds:.1f} s", file=sys.stderr, flush=True)
    shared().close()
    show(page(outcomes, alone, str(tier()), chosen.each))
    return int(not all(outcome.alone for _, outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
