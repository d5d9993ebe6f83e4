"""How far every benchmark was checked: ``python -m results.scripts.grading.benchmarks [CHECK.json ...]``.

Each CHECK.json is what ``harness check --json`` printed, for some tasks or all; its numbers are kept in
``results/grading/benchmarks.json``. ``results/grading/BENCHMARKS.md`` lists every benchmark with them.
"""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from typing import Any

from harness import durable, registry

FOLDER = Path(__file__).parents[2] / "grading"
NUMBERS, PAGE = FOLDER / "benchmarks.json", FOLDER / "BENCHMARKS.md"
VERIFIED, GOLD, UNTESTED = "verified against published per-sample outputs", "gold-checked", "untested"
LEAD = f"""# How far every benchmark was checked

- **{VERIFIED}**: outputs of other models that were published one by one, with verdicts or totals, are graded here and
  give the published numbers.
- **{GOLD}**: `harness check` accepts the reference answers and refuses wrong ones. No outputs of models with verdicts
  were available.
- **{UNTESTED}**: neither. The score takes a judge whose verdicts are not known in advance; parts are tested.

Made by `python -m results.scripts.grading.benchmarks` from the output of `harness check --json` on the pinned files.

| benchmark | problems | checked | reference answers accepted | wrong ones refused | what else is known |
|---|---:|---|---:|---:|---|
"""


def main() -> None:
    kept = json.loads(NUMBERS.read_text("utf-8")) if NUMBERS.is_file() else {}
    for path in sys.argv[1:]:
        for task in json.loads(Path(path).read_text("utf-8"))["tasks"]:
            kept[task["task"]] = {key: task[key] for key in ("status", "golds", "traps")}
    durable.write(NUMBERS, (json.dumps(dict(sorted(kept.items())), indent=1) + "\n").encode())
    durable.write(PAGE, page(kept).encode())
    print(PAGE)


def page(kept: dict[str, Any]) -> str:
    """The page from the numbers of the checks."""
    published = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    return LEAD + "\n".join(_row(entry.name, kept, published) for entry in registry.entries(registry.TASKS)) + "\n"


def _row(name: str, kept: dict[str, Any], published: dict[str, Any]) -> str:
    task, numbers, known = registry.find(registry.TASKS, name), kept.get(name), published.get(name, {})
    green = numbers is not None and numbers["status"] == "green"
    status = VERIFIED if known.get("verified") and green else GOLD if green else UNTESTED
    counts = [f"{numbers[key]['passed']}/{numbers[key]['total']}" if green else "" for key in ("golds", "traps")]
    return f"| {name} | {task.dataset.n} | {status} | {counts[0]} | {counts[1]} | {known.get('note', '')} |"


if __name__ == "__main__":
    main()
