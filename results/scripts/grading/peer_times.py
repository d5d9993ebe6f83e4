"""Times our grading and EvalPlus' own run on the canonical programs of HumanEval+ and MBPP+, one after the other.

    python -m results.scripts.grading.peer_times > results/grading/times.md      needs HARNESS_DATA and evalplus

Both have their expected outputs in their cache, both use every core, and EvalPlus grades with its default limits.
Each runs twice, in the order ours, EvalPlus, EvalPlus, ours, so that a drifting load affects both the same.
``--every 8`` takes every eighth problem: EvalPlus then finds a file that holds no others.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from harness.evaluation.benchmarks import open_task
from harness.grading.code.differential import grade
from harness.grading.code.problem import CodeProblem
from harness.sandbox import Sandbox, SandboxJob, SandboxOutcome
from harness.sandbox.job import Receiver
from harness.sandbox.pool import PATIENCE
from results.scripts.grading.peer_graders import FILES

BENCHMARKS = {"humanevalplus": "humaneval", "mbppplus": "mbpp"}


class _Metered(Sandbox):
    """Adds up the CPU seconds used inside the sandbox, whose processes are not children that this process waits for."""

    def __init__(self) -> None:
        super().__init__()
        self.spent: list[float] = []

    def run(self, job: SandboxJob, receive: Receiver, patience: float = PATIENCE) -> SandboxOutcome:
        outcome = super().run(job, receive, patience)
        self.spent.append(outcome.cpu)
        return outcome


def _measured(work: Callable[[], tuple[int, float]]) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds of this process, its ended children and the sandbox, and how many were right."""
    began, before = time.monotonic(), _cpu()
    right, inside = work()
    return time.monotonic() - began, _cpu() - before + inside, right


def _cpu() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _ours(problems: Sequence[CodeProblem], programs: Sequence[str]) -> tuple[int, float]:
    with _Metered() as sandbox:  # its processes start within the time that is measured
        right = sum(verdict.score == 1 for verdict in grade(problems, programs, sandbox))
    return right, sum(sandbox.spent)


def _evalplus(dataset: str, samples: Path, cores: int) -> tuple[int, float]:
    from evalplus.evaluate import evaluate

    with contextlib.redirect_stdout(sys.stderr):
        evaluate(dataset, str(samples), parallel=cores, i_just_wanna_run=True)
    results = samples.with_name(f"{samples.stem}_eval_results.json")
    verdicts = json.loads(results.read_text("utf-8"))["eval"]
    results.unlink()  # else the next run would reuse it
    return sum(row[0]["base_status"] == row[0]["plus_status"] == "pass" for row in verdicts.values()), 0.0


def _thinned(folder: Path, every: int) -> None:
    """Gives EvalPlus, before its first import, files of every ``every``-th problem."""
    for dataset, local in FILES.items():
        lines = gzip.decompress((Path(os.environ["HARNESS_DATA"]) / local).read_bytes()).splitlines(keepends=True)
        thin = folder / f"{dataset}-data.jsonl"
        thin.write_bytes(b"".join(lines[::every]))
        os.environ[f"{dataset.upper()}_OVERRIDE_PATH"] = str(thin)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m results.scripts.grading.peer_times", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--every", type=int, default=1, help="take every N-th problem (default: all)")
    every = parser.parse_args(words).every
    cores = len(os.sched_getaffinity(0))
    what = "the canonical programs" if every == 1 else f"the canonical program of every {every}th problem"
    print(f"# Seconds for {what}, {cores} cores, load {os.getloadavg()[0]:.1f}\n")
    print("| benchmark | grader | right | wall seconds | CPU seconds |\n|---|---|---:|---:|---:|")
    totals = {"ours": [0.0, 0.0], "EvalPlus": [0.0, 0.0]}
    with tempfile.TemporaryDirectory() as folder:
        _thinned(Path(folder), every)
        os.environ["XDG_CACHE_HOME"] = folder  # EvalPlus unpickles what it finds there
        for name, dataset in BENCHMARKS.items():
            task = open_task(name)
            chosen = [problem.reference for problem in task.items[::every]]
            programs = {p.task_id: p.prompt + p.canonical_solution for p in chosen}
            samples = Path(folder) / f"{dataset}.jsonl"
            samples.write_text("".join(json.dumps({"task_id": k, "solution": p}) + "\n" for k, p in programs.items()))
            graders = {
                "ours": partial(_ours, chosen, list(programs.values())),
                "EvalPlus": partial(_evalplus, dataset, samples, cores),
            }
            for work in graders.values():
                work()  # computes the expected outputs
            for grader in ("ours", "EvalPlus", "EvalPlus", "ours"):
                wall, cpu, right = _measured(graders[grader])
                totals[grader] = [totals[grader][0] + wall, totals[grader][1] + cpu]
                print(f"| {name} | {grader} | {right}/{len(programs)} | {wall:.1f} | {cpu:.1f} |", flush=True)
    (wall, cpu), (its_wall, its_cpu) = totals["ours"], totals["EvalPlus"]
    print(f"\nOurs / EvalPlus: {wall / its_wall:.2f} in wall time, {cpu / its_cpu:.2f} in CPU time.")
    print(f"Load at the end: {os.getloadavg()[0]:.1f}.")


if __name__ == "__main__":
    sys.exit(main())
