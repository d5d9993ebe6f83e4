"""Checks that recorded judgements reproduce published win rates.

Besides the pinned outputs of a judged benchmark, ``$HARNESS_DATA`` may contain, in alpaca_eval's own layout,
``results/MODEL/ANNOTATOR/annotations.json``, ``results/MODEL/model_outputs.json`` and
``leaderboards/*/ANNOTATOR_leaderboard.csv``.
"""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from pathlib import Path

from harness import data
from harness.evaluation.grade import grade
from harness.task import Task

TOLERANCE = 0.01  # percentage points


@dataclass(frozen=True)
class Recorded:
    """One model's recorded judgements and its published win rates, in per cent."""

    task: str
    annotations: Path
    outputs: Path
    win_rate: float
    length_controlled: float | None

    @property
    def name(self) -> str:
        return f"{self.annotations.parent.parent.name}/{self.annotations.parent.name}"


def recorded(task: type[Task]) -> list[Recorded]:
    """The recorded judgements of all items of a benchmark. Raises BadInput if its data is missing."""
    opened = task(data.read(task.dataset))
    results = Path(os.environ.get("HARNESS_DATA", ".")) / Path(task.dataset.local).parent.parent
    if len(opened.items) != len(opened.data.rows) or results.name != "results":
        return []  # published rates are computed on whole files
    found = []
    for judged in sorted(results.glob("*/*/annotations.json")):
        outputs = judged.parent.parent / "model_outputs.json"
        row = _published(results.parent / "leaderboards", judged)
        if row is not None and outputs.is_file():
            controlled = row.get("length_controlled_winrate")
            found.append(
                Recorded(task.name, judged, outputs, float(row["win_rate"]), float(controlled) if controlled else None)
            )
    return found


def _published(boards: Path, annotations: Path) -> dict[str, str] | None:
    """The leaderboard row of the model whose folder contains ``annotations``; the first column is its name."""
    for board in boards.glob(f"*/{annotations.parent.name}_leaderboard.csv"):
        with board.open(encoding="utf-8", newline="") as file:
            return next((row for row in csv.DictReader(file) if row[""] == annotations.parent.parent.name), None)
    return None


def win_rate(published: Recorded) -> tuple[float, str]:
    """The computed win rate in per cent, and a line that compares it with the published one."""
    outcome = grade(f"{published.task}@real", published.outputs, f"replay:{published.annotations}")
    ours = 100 * outcome["score"]
    note = f"{published.name}: win rate {ours:.4f}, published {published.win_rate:.4f}"
    controlled = outcome["measures"]["length_controlled"]
    if controlled and published.length_controlled is not None:
        rate = 100 * controlled["win_rate"]
        note += f"; length-controlled {rate:.2f}, published {published.length_controlled:.2f}"
    return ours, note
