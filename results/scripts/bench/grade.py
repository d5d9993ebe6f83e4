"""Grading the canonical programs of HumanEval+ and MBPP+: ``harness grade`` against evalplus' own command.

Both are whole commands, start-up included, with as many workers as there are cores; both have the expected
outputs in their cache, as after a first run. Needs the two benchmark files below ``HARNESS_DATA``.
"""

from __future__ import annotations

import gzip
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from results.scripts.bench.commands import timed
from results.scripts.bench.measure import BenchReport, in_turns, ratio, spread

FILES = {"humaneval": "humanevalplus/HumanEvalPlus.jsonl.gz", "mbpp": "mbppplus/MbppPlus.jsonl.gz"}
OVERRIDES = {"humaneval": "HUMANEVAL_OVERRIDE_PATH", "mbpp": "MBPP_OVERRIDE_PATH"}
COLUMNS = [
    "benchmark",
    "programs",
    "speed-up (wall)",
    "ours s",
    "evalplus s",
    "ours CPU s",
    "evalplus CPU s",
    "passed ours",
]


def run(chosen: Any) -> BenchReport:
    """A row a benchmark, canonical programs only; the first, cold round of each side is not counted."""
    report, rows = BenchReport.of("grade", __doc__, chosen.threads), []
    for name, file in FILES.items():
        if chosen.only and name not in chosen.only:
            continue
        path = Path(os.environ.get("HARNESS_DATA", "")) / file
        if not path.is_file():
            raise BadInput(f"{file} is not below HARNESS_DATA; the benchmark needs it")
        with tempfile.TemporaryDirectory() as folder:
            with gzip.open(path, "rt", encoding="utf-8") as stream:
                problems = [json.loads(line) for line in stream]
            problems = problems[:8] if chosen.size == "small" else problems
            samples = Path(folder) / "samples.jsonl"
            samples.write_text("".join(json.dumps(_sample(p)) + "\n" for p in problems), "utf-8")
            subset = Path(folder) / "problems.jsonl"
            subset.write_text("".join(json.dumps(p) + "\n" for p in problems), "utf-8")
            sides = [_ours(f"{name}plus@real", samples), _evalplus(name, samples, subset)]
            in_turns(sides, 1)
            rounds = in_turns(sides, chosen.rounds)
        report.raw[name] = [[{k: s[k] for k in ("seconds", "cpu")} for s in pair] for pair in rounds]
        counts = json.loads(rounds[0][0]["stdout"])["records"][0]["counts"]
        middle = sorted(rounds, key=lambda pair: pair[0]["seconds"])[len(rounds) // 2]
        cells = [spread(ratio([(b["seconds"], a["seconds"]) for a, b in rounds]))]
        cells += [f"{side[key]:.1f}" for key in ("seconds", "cpu") for side in middle]
        rows.append([f"{name}+", str(len(problems)), *cells, f"{counts['correct']:g} of {counts['total']}"])
        report.tables = [("", COLUMNS, rows)]
        report.write(chosen.out)
    report.notes = ["CPU seconds count processes that were waited for; workers that a side kills when it ends are not."]
    return report


def _sample(problem: dict[str, Any]) -> dict[str, str]:
    return {"task_id": problem["task_id"], "solution": problem["prompt"] + problem["canonical_solution"]}


def _ours(task: str, samples: Path) -> Callable[[], dict[str, Any]]:
    command = [sys.executable, "-m", "harness", "grade", "--task", task, "--samples", str(samples), "--json"]
    return lambda: timed(command)


def _evalplus(name: str, samples: Path, problems: Path) -> Callable[[], dict[str, Any]]:
    workers = str(os.cpu_count() or 1)
    command = [sys.executable, "-m", "evalplus.evaluate", "--dataset", name, "--samples", str(samples)]
    command += ["--parallel", workers, "--i_just_wanna_run", "True"]

    def turn() -> dict[str, Any]:
        Path(str(samples).replace(".jsonl", "_eval_results.json")).unlink(missing_ok=True)
        return timed(command, {OVERRIDES[name]: str(problems)})

    return turn
