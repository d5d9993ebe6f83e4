"""Grades the stored completions of published records again, under the tasks as they are now.

    python -m results.scripts.regrade [FOLDER ...] > results/grading/regraded.md

The version of a task rises where scores could move. Records keep the version that they were made under. This script
grades every stored completion under the current version and counts the verdicts that differ, so that a reader knows
whether a published score would be the same today. It changes no record.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from harness.evaluation import benchmarks, evaluate
from harness.records.store import Store
from harness.types import Completion

FOLDERS = ("results/micro", "results/objectives", "results/instruction")


def differences(store: Store) -> dict[tuple[str, str, str], list[int]]:
    """Per (task, version then, version now): records, completions, verdicts that differ, scores that differ."""
    counts: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    tasks = {}
    records, _ = store.all()
    for i, record in enumerate(records):
        if record["task"] not in tasks:
            tasks[record["task"]] = benchmarks.open_task(record["task"])
        task, rows = tasks[record["task"]], store.completions(record)
        texts = [Completion.of(row) for row in rows]
        again = evaluate.rows(texts, evaluate.verdicts_of(task, texts))
        changed = sum(a["score"] != b["score"] for a, b in zip(rows, again, strict=True))
        moved = abs(evaluate.score(task, again).value - record["score"]) > 1e-12
        entry = counts[record["task"], record["protocol"]["version"], task.version]
        for k, value in enumerate((1, len(rows), changed, int(moved))):
            entry[k] += value
        print(f"{store.root}: {i + 1} of {len(records)}", file=sys.stderr)
    return counts


def page(folders: Sequence[str]) -> str:
    lines = [
        "# Published completions, graded again",
        "",
        "`python -m results.scripts.regrade` grades the stored completions of these folders under the current",
        "version of their task. The records keep the version that they were made under.",
        "",
        "| folder | task | version then | now | records | completions | verdicts that differ | scores that differ |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for folder in folders:
        for (task, then, now), counts in sorted(differences(Store(folder)).items()):
            lines.append(f"| {folder} | {task} | {then} | {now} | {' | '.join(map(str, counts))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    folders = sys.argv[1:] or [folder for folder in FOLDERS if Path(folder).is_dir()]
    sys.stdout.write(page(folders))
