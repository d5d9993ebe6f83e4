"""Published programs under our grader: ``python -m results.scripts.grading.livecodebench REPAIR SUBMISSION...``.

The hidden tests of LiveCodeBench are on a hub of data sets only. Public git repositories hold the sample tests of many
of its problems, one commit a problem (REPAIR: a clone of swe-bench/swe-bench__livecodebench-selfrepair), and what
models wrote with its verdicts (SUBMISSION: a ``*_eval_all.json`` of LiveCodeBench/submissions). A program that passed
the hidden tests passes the samples among them; one that failed may pass these. ``results/grading/livecodebench.md`` has
the counts, and every program published as right that fails here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness import durable
from harness.evaluation.benchmarks import locate
from harness.task import Data, Task
from harness.types import Completion

PAGE = Path(__file__).parents[2] / "grading/livecodebench.md"
LEAD = """# LiveCodeBench's published programs under our grader

Sample tests of {n} problems (AtCoder, standard input; swe-bench/swe-bench__livecodebench-selfrepair at {repair}), and
what models wrote for them with the published verdicts (LiveCodeBench/submissions). The published verdicts are on hidden
tests too, which are on a hub of data sets alone: a program published as right must pass here, one published as wrong
may. The hidden tests themselves, and LeetCode's calls, were not run on published programs.
`python -m results.scripts.grading.livecodebench REPAIR SUBMISSION...` makes this page.

| submission | programs | published as right | of these pass | published as wrong | of these pass the samples |
|---|---:|---:|---:|---:|---:|
"""


def main() -> None:
    repair, files = Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
    tests, commit = dict(_sample_tests(repair)), _git(repair, "rev-parse", "--short", "HEAD").strip()
    lines, failed, shown = [], [], set()
    for path in files:
        rows = [row for row in json.loads(path.read_text("utf-8")) if row["question_id"] in tests]
        shown |= {row["question_id"] for row in rows}
        counts, wrong = _graded(_task(rows, tests), rows, path)
        failed += wrong
        lines.append(f"| {path.parent.name or path.stem} | {sum(counts.values())} | {_both(counts, True)} | "
                     f"{counts[True, True]} | {_both(counts, False)} | {counts[False, True]} |")  # fmt: skip
    text = (
        LEAD.format(n=len(shown), repair=commit)
        + "\n".join(lines)
        + "\n\n## Published as right, and not passed here\n\n"
    )
    durable.write(PAGE, (text + ("\n".join(failed) or "None.") + "\n").encode())
    print(PAGE)


def _both(counts: Counter, right: bool) -> int:
    return counts[right, True] + counts[right, False]


def _sample_tests(repair: Path) -> Iterator[tuple[str, str]]:
    """The id of every problem and its sample tests as JSON; a commit without readable tests is left out."""
    for line in _git(repair, "log", "--format=%H %s").splitlines():
        commit, *_, name = line.split()
        try:
            yield name, json.loads(_git(repair, "show", f"{commit}:tests.json"))["tests"]
        except (subprocess.CalledProcessError, ValueError, KeyError):
            continue


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _task(rows: list[dict[str, Any]], tests: dict[str, str]) -> Task:
    with_tests = [row | {"public_test_cases": tests[row["question_id"]], "private_test_cases": "[]"} for row in rows]
    return locate("livecodebench")[0](Data([r | {"metadata": "{}"} for r in with_tests], "0" * 64, "sample tests"))


def _graded(task: Task, rows: list[dict[str, Any]], path: Path) -> tuple[Counter, list[str]]:
    """How many programs have each pair of (published, ours), and those published as right that fail here."""
    programs = [(row["question_id"], k, code) for row in rows for k, code in enumerate(row["code_list"])]
    published = [passed for row in rows for passed in row["graded_list"]]
    completions = [Completion(name, k, "", 0, "stop") for name, k, _ in programs]
    verdicts = task.grade_programs(completions, [code for _, _, code in programs])
    pairs = list(zip(published, verdicts, strict=True))
    wrong = [f"- {path.parent.name}, {v.problem_id}: {v.reason}" for right, v in pairs if right and not v.score]
    return Counter((bool(right), bool(v.score)) for right, v in pairs), wrong


if __name__ == "__main__":
    main()
