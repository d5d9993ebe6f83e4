"""How long the canonical programs of HumanEval+ and MBPP+ take: our grading and EvalPlus' own run, one after the other.

    python -m harness.evaluation.peer_times > results/grading/TIMES.md      needs HARNESS_DATA and evalplus

Both have computed their expected outputs before, both use every core, and EvalPlus grades with its default limits.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness.evaluation.benchmarks import open_task
from harness.evaluation.peer_graders import give_evalplus_its_files
from harness.task import Task
from harness.types import Completion

BENCHMARKS = {"humanevalplus": "humaneval", "mbppplus": "mbpp"}


def _measured(work: Callable[[], object]) -> tuple[float, float, object]:
    """Wall seconds, CPU seconds of this process and its ended children, and what ``work`` returned."""
    began, before = time.monotonic(), _cpu()
    result = work()
    return time.monotonic() - began, _cpu() - before, result


def _cpu() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _ours(task: Task, programs: dict[str, str]) -> int:
    from harness.sandbox import shared

    completions = [Completion(key, 0, "", 0, "stop") for key in programs]
    right = sum(verdict.score == 1 for verdict in task.grade_programs(completions, list(programs.values())))
    shared().close()  # so that what its processes used is counted
    return right


def _evalplus(dataset: str, samples: Path, cores: int) -> int:
    from evalplus.evaluate import evaluate

    with contextlib.redirect_stdout(sys.stderr):
        evaluate(dataset, str(samples), parallel=cores, i_just_wanna_run=True)
    found = json.loads(samples.with_name(f"{samples.stem}_eval_results.json").read_text("utf-8"))["eval"]
    return sum(row[0]["base_status"] == row[0]["plus_status"] == "pass" for row in found.values())


def main() -> None:
    cores = len(os.sched_getaffinity(0))
    print(f"# Seconds for the canonical programs, {cores} cores\n")
    print("| benchmark | grader | right | wall seconds | CPU seconds |\n|---|---|---:|---:|---:|")
    totals = {"ours": [0.0, 0.0], "EvalPlus": [0.0, 0.0]}
    with tempfile.TemporaryDirectory() as folder:
        give_evalplus_its_files()
        os.environ["XDG_CACHE_HOME"] = folder  # EvalPlus unpickles what it finds there
        for name, dataset in BENCHMARKS.items():
            task = open_task(name)
            programs = {p.id: p.reference.prompt + p.reference.canonical_solution for p in task.items}
            samples = Path(folder) / f"{dataset}.jsonl"
            samples.write_text("".join(json.dumps({"task_id": k, "solution": p}) + "\n" for k, p in programs.items()))
            _ours(task, programs)  # these two runs compute the expected outputs
            _evalplus(dataset, samples, cores)
            samples.with_name(f"{samples.stem}_eval_results.json").unlink()
            for grader, work in (
                ("ours", lambda task=task, programs=programs: _ours(task, programs)),
                ("EvalPlus", lambda dataset=dataset, samples=samples: _evalplus(dataset, samples, cores)),
            ):
                wall, cpu, right = _measured(work)
                totals[grader] = [totals[grader][0] + wall, totals[grader][1] + cpu]
                print(f"| {name} | {grader} | {right}/{len(programs)} | {wall:.1f} | {cpu:.1f} |", flush=True)
    (wall, cpu), (its_wall, its_cpu) = totals["ours"], totals["EvalPlus"]
    print(f"\nOurs / EvalPlus: {wall / its_wall:.2f} in wall time, {cpu / its_cpu:.2f} in CPU time.")


if __name__ == "__main__":
    sys.exit(main())
