"""Replays recorded ratings: FastChat's ``model_judgment/JUDGE_single.jsonl`` as a judge.

A row holds the prompt that the judge read, ``user_prompt``, and the ``score`` that was read from its reply, -1 where it
had none. An answer is looked up by the whole prompt, so it has a rating only if it was asked about in these words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from harness import safe_read
from harness.data import parse
from harness.errors import BadInput
from harness.grading.judges.judgement import Judge, Judgement, PairToJudge
from harness.grading.judges.rating import HIGH, LOW, as_share, messages


class ReplayRatings(Judge):
    """Rates an answer as recorded; several ratings of one answer are averaged. Raises BadInput for another file."""

    protocol = "mt-bench"
    rates = True

    def __init__(self, path: Path | str):
        path = Path(path)
        rows, sha256 = recorded_rows(path, "judgements")
        self.recorded: dict[str, list[float | None]] = {}
        for number, row in enumerate(rows, 1):
            self.recorded.setdefault(_prompt(row, path, number), []).append(_score(row, path, number))
        judges = sorted({str(row["judge"][0] if isinstance(row.get("judge"), list) else "") for row in rows})
        if len(judges) > 1:
            raise BadInput(f"{path}: mixes judges {', '.join(judges[:4])}; keep one of them in the file")
        self._identity = {
            "kind": "replay",
            "annotator": judges[0],
            "ratings_sha256": sha256,
        }

    def identity(self) -> dict[str, Any]:
        return dict(self._identity)

    def judge(self, comparisons: Sequence[PairToJudge]) -> list[Judgement]:
        return [self._recall(messages(asked)[-1]["content"]) for asked in comparisons]

    def _recall(self, asked: str) -> Judgement:
        if (scores := self.recorded.get(asked)) is None:
            return Judgement(None, "no recorded judgement of this answer in these words")
        given = [score for score in scores if score is not None]
        if not given:
            return Judgement(None, "the recorded judge gave no rating", unparsed=True)
        return Judgement(as_share(fmean(given)), f"recorded rating {fmean(given):g}")


def recorded_rows(path: Path, what: str) -> tuple[list[dict[str, Any]], str]:
    """The rows of a file of recorded judgements and its sha256. Raises BadInput where it cannot be read or has none."""
    try:
        content = safe_read.content(path, safe_read.LARGE)
    except BadInput as error:
        raise BadInput(f"--judge replay:{path}: {error}") from None
    rows = parse(content, path)
    if not rows:
        raise BadInput(f"--judge replay:{path}: holds no {what}")
    return rows, hashlib.sha256(content).hexdigest()


def _prompt(row: Mapping[str, Any], path: Path, number: int) -> str:
    if not isinstance(row.get("user_prompt"), str):
        raise BadInput(f"{path}: judgement {number} has no text under 'user_prompt'")
    return row["user_prompt"]


def _score(row: Mapping[str, Any], path: Path, number: int) -> float | None:
    """The rating of one judgement, None where upstream read none from the reply."""
    score = row.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise BadInput(f"{path}: judgement {number} has no number under 'score'")
    if score == -1:
        return None
    if not LOW <= score <= HIGH:
        raise BadInput(f"{path}: judgement {number} has the score {score:g}, outside {LOW:g} to {HIGH:g}")
    return float(score)
