"""Checks that recorded ratings reproduce the mean ratings that FastChat computes from them.

Beside its questions, ``$HARNESS_DATA`` may hold what FastChat keeps of an evaluation: ``model_answer/MODEL.jsonl`` and
``model_judgment/JUDGE_single.jsonl``. A rating is found by the whole prompt that the judge read, so the check also
compares, character by character, the words of the judge, the conversations and the reference answers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from harness import data
from harness.evaluation.grade import grade
from harness.task import Task

TOLERANCE = 5e-4  # of a rating from 1 to 10


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


def recorded(task: type[Task]) -> list[RecordedRatings]:
    """The recorded ratings of all turns of a benchmark. Raises BadInput if its data is missing."""
    data.read(task.dataset)
    folder = (Path(os.environ.get("HARNESS_DATA", ".")) / task.dataset.local).parent
    found = []
    for judged in sorted((folder / "model_judgment").glob("*_single.jsonl")):
        rows = data.parse(judged.read_bytes(), judged)
        for answers in sorted((folder / "model_answer").glob("*.jsonl")):
            # Of a model that was asked twice under one name the file has both; its answers are the later ones.
            own = {(r["question_id"], r["turn"]): r["score"] for r in rows if r.get("model") == answers.stem}
            if scores := [score for score in own.values() if score != -1]:
                found.append(RecordedRatings(task.name, answers, judged, fmean(scores)))
    return found


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
