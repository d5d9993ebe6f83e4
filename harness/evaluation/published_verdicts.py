"""Checks that recorded judgements reproduce published win rates.

Besides the pinned outputs of a judged benchmark, ``$HARNESS_DATA`` may contain, in alpaca_eval's own layout,
``results/MODEL/ANNOTATOR/annotations.json``, ``results/MODEL/model_outputs.json`` and
``leaderboards/*/ANNOTATOR_leaderboard.csv``.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from harness import data
from harness.evaluation.grade import grade
from harness.task import Task

WIN_RATE_TOLERANCE = 0.01  # percentage points


@dataclass(frozen=True)
class RecordedWinRates:
    """One model's recorded judgements and its published win rates, in per cent."""

    task: str
    annotations: Path
    outputs: Path
    win_rate: float
    length_controlled: float | None

    @property
    def name(self) -> str:
        return f"{self.annotations.parent.parent.name}/{self.annotations.parent.name}"


def recorded_win_rates(task: type[Task]) -> list[RecordedWinRates]:
    """The recorded judgements of all items of a benchmark. Raises BadInput if its data is missing."""
    opened = task(data.read(task.dataset))
    results = (data.folder() or Path()) / Path(task.dataset.local).parent.parent
    if len(opened.items) != len(opened.data.rows) or results.name != "results":
        return []  # published rates are computed on whole files
    rates = []
    for judged in sorted(results.glob("*/*/annotations.json")):
        outputs = judged.parent.parent / "model_outputs.json"
        row = _published(results.parent / "leaderboards", judged)
        if row is not None and outputs.is_file():
            controlled = row.get("length_controlled_winrate")
            rates.append(
                RecordedWinRates(
                    task.name, judged, outputs, float(row["win_rate"]), float(controlled) if controlled else None
                )
            )
    return rates


def _published(boards: Path, annotations: Path) -> dict[str, str] | None:
    """The leaderboard row of the model whose folder contains ``annotations``; the first column is its name."""
    for board in boards.glob(f"*/{annotations.parent.name}_leaderboard.csv"):
        with board.open(encoding="utf-8", newline="") as file:
            return next((row for row in csv.DictReader(file) if row[""] == annotations.parent.parent.name), None)
    return None


def win_rate(published: RecordedWinRates) -> tuple[float, str]:
    """The computed win rate in per cent, and a line that compares it with the published one."""
    outcome = grade(f"{published.task}@real", published.outputs, f"replay:{published.annotations}")
    ours = 100 * outcome["score"]
    note = f"{published.name}: win rate {ours:.4f}, published {published.win_rate:.4f}"
    controlled = outcome["measures"]["length_controlled"]
    if controlled and published.length_controlled is not None:
        rate = 100 * controlled["win_rate"]
        note += f"; length-controlled {rate:.2f}, published {published.length_controlled:.2f}"
    return ours, note


# Checks that recorded ratings reproduce the mean ratings that FastChat computes from them.
#
# Besides its questions, ``$HARNESS_DATA`` may contain FastChat's files of an evaluation: ``model_answer/MODEL.jsonl``
# and ``model_judgment/JUDGE_single.jsonl``. A rating is found by the whole prompt that the judge read, so the check
# also compares, character by character, the words of the judge, the conversations and the reference answers.

RATING_TOLERANCE = 5e-4  # of a rating from 1 to 10


@dataclass(frozen=True)
class RecordedRatings:
    """The ratings of one model: the file of its answers, the file of the judgements, and their mean."""

    task: str
    answers: Path
    judgements: Path
    mean: float

    @property
    def name(self) -> str:
        return f"{self.answers.stem}/{self.judgements.stem}"


def recorded_ratings(task: type[Task]) -> list[RecordedRatings]:
    """The recorded ratings of all turns of a benchmark. Raises BadInput if its data is missing."""
    data.read(task.dataset)
    folder = ((data.folder() or Path()) / task.dataset.local).parent
    ratings = []
    for judged in sorted((folder / "model_judgment").glob("*_single.jsonl")):
        rows = data.parse(judged.read_bytes(), judged)
        for answers in sorted((folder / "model_answer").glob("*.jsonl")):
            # If a model was asked twice under one name, the file has both answers; the later one counts.
            own = {(r["question_id"], r["turn"]): r["score"] for r in rows if r.get("model") == answers.stem}
            if scores := [score for score in own.values() if score != -1]:
                ratings.append(RecordedRatings(task.name, answers, judged, fmean(scores)))
    return ratings


def mean_rating(published: RecordedRatings) -> tuple[float, str]:
    """The mean rating of all answers that the task asks about, and a line that compares it with the recorded one."""
    outcome = grade(f"{published.task}@real", published.answers, f"replay:{published.judgements}")
    scores = [row["score"] for row in outcome["verdicts"] if not row["error"]]
    ours = fmean(scores) if scores else 0.0
    unfound = sum("no recorded judgement" in row["reason"] for row in outcome["verdicts"])
    return ours, (
        f"{published.name}: mean rating {ours:.4f}, recorded {published.mean:.4f}; {len(scores)} answers rated, "
        f"{unfound} not found in the judgements"
    )
