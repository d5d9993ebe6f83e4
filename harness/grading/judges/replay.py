"""Replays recorded judgements: alpaca_eval's ``annotations.json`` as a judge.

Recorded ratings of single answers follow below.

Each annotation compares ``output_1``, the reference, with ``output_2``, the model. ``preference`` runs from 1
(the reference wins) to 2 (the model wins); 1.5 and 0 are draws; null, and the -1 that alpaca_eval keeps for a
reply it could not parse, mean no verdict.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from harness import safe_read
from harness.data import parse
from harness.errors import BadInput
from harness.grading.judges.judgement import HIGH, LOW, Judge, Judgement, PairToJudge, as_share, rating_messages

log = logging.getLogger(__name__)

TEXTS = ("instruction", "output_1", "output_2")


class Replay(Judge):
    """Replays recorded judgements: answers a comparison if exactly its instruction and candidate were judged.

    It uses the recorded reference, not the task's, because the text of an older reference file may differ; the name of
    the reference enters the identity. Raises BadInput for a file that is not a list of annotations of one judge.
    """

    name, takes = "replay", "FILE"

    @classmethod
    def open(cls, argument: str, protocol: str, keep: Path | None) -> Judge:
        return ReplayRatings(argument) if protocol == ReplayRatings.protocol else super().open(argument, protocol, keep)

    def __init__(self, path: Path | str):
        path = Path(path)
        rows, sha256 = recorded_rows(path, "annotations")
        self.recorded: dict[tuple[str, str], list[float | None]] = {}
        self.references: dict[tuple[str, str], str] = {}
        for number, row in enumerate(rows, 1):
            instruction, reference, candidate = _texts(row, path, number)
            key = (instruction, candidate)
            self.recorded.setdefault(key, []).append(_score(row, path, number))
            self.references[key] = reference
        self._identity = {
            "kind": "replay",
            "annotator": _only_one(rows, "annotator", path),
            "reference": _only_one(rows, "generator_1", path),
            "annotations_sha256": sha256,
        }

    def identity(self) -> dict[str, Any]:
        return dict(self._identity)

    def compared_with(self, instruction: str, candidate: str) -> str | None:
        """The reference text of the recorded judgement, None where there is none."""
        return self.references.get((instruction, candidate))

    def judge(self, comparisons: Sequence[PairToJudge]) -> list[Judgement]:
        strangers = sum(
            self.references.get((c.instruction, c.candidate), c.reference) != c.reference for c in comparisons
        )
        if strangers:
            log.warning(
                "%d of %d recorded judgements compare with another reference text than the task's: "
                "the score is against the recorded %s",
                strangers,
                len(comparisons),
                self._identity["reference"] or "reference",
            )
        return [self._recall(c) for c in comparisons]

    def _recall(self, comparison: PairToJudge) -> Judgement:
        scores = self.recorded.get((comparison.instruction, comparison.candidate))
        if scores is None:
            return Judgement(None, "no recorded judgement of this response to this instruction")
        answered = [score for score in scores if score is not None]
        if not answered:
            return Judgement(None, "the recorded judge gave no verdict", unparsed=True)
        score = fmean(answered)
        return Judgement(score, f"recorded preference {1 + score:g} (1 reference, 2 candidate)")


def _texts(row: Mapping[str, Any], path: Path, number: int) -> tuple[str, str, str]:
    for field in TEXTS:
        if not isinstance(row.get(field), str):
            raise BadInput(f"{path}: annotation {number} has no text under {field!r}")
    return row["instruction"], row["output_1"], row["output_2"]


def _score(row: Mapping[str, Any], path: Path, number: int) -> float | None:
    """The candidate's score in [0, 1] of one annotation, None for no verdict."""
    if "preference" not in row:
        raise BadInput(f"{path}: annotation {number} has no 'preference'")
    preference = row["preference"]
    if preference is None or preference == -1:
        return None
    if isinstance(preference, bool) or not isinstance(preference, int | float):
        raise BadInput(f"{path}: annotation {number} has preference {preference!r}, not a number")
    if math.isnan(preference):
        return None
    if preference == 0:
        return 0.5
    if not 1 <= preference <= 2:
        raise BadInput(f"{path}: annotation {number} has preference {preference}, outside 1 to 2")
    return preference - 1.0


def _only_one(rows: Sequence[Mapping[str, Any]], field: str, path: Path) -> str | None:
    """The only value of ``field``. Raises BadInput for several: judgements of several judges make no common score."""
    names = sorted({str(row[field]) for row in rows if row.get(field) is not None})
    if len(names) > 1:
        raise BadInput(f"{path}: mixes {field}s {', '.join(names[:4])}; keep one of them in the file")
    return names[0] if names else None


# Replays recorded ratings: FastChat's ``model_judgment/JUDGE_single.jsonl`` as a judge.
#
# A row holds the prompt that the judge read, ``user_prompt``, and the ``score`` that was read from its reply, -1
# where it had none. An answer is looked up by the whole prompt, so it has a rating only if it was asked about in
# these words.


class ReplayRatings(Judge):
    """Rates an answer as recorded; several ratings of one answer are averaged. Raises BadInput for another file."""

    protocol = "mt-bench"
    rates = True

    def __init__(self, path: Path | str):
        path = Path(path)
        rows, sha256 = recorded_rows(path, "judgements")
        self.recorded: dict[str, list[float | None]] = {}
        for number, row in enumerate(rows, 1):
            self.recorded.setdefault(_prompt_of(row, path, number), []).append(_rating_of(row, path, number))
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
        return [self._recall(rating_messages(conversation)[-1]["content"]) for conversation in comparisons]

    def _recall(self, question: str) -> Judgement:
        if (scores := self.recorded.get(question)) is None:
            return Judgement(None, "no recorded judgement of this answer in these words")
        ratings = [score for score in scores if score is not None]
        if not ratings:
            return Judgement(None, "the recorded judge gave no rating", unparsed=True)
        return Judgement(as_share(fmean(ratings)), f"recorded rating {fmean(ratings):g}")


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


def _prompt_of(row: Mapping[str, Any], path: Path, number: int) -> str:
    if not isinstance(row.get("user_prompt"), str):
        raise BadInput(f"{path}: judgement {number} has no text under 'user_prompt'")
    return row["user_prompt"]


def _rating_of(row: Mapping[str, Any], path: Path, number: int) -> float | None:
    """The rating of one judgement, None where upstream read none from the reply."""
    score = row.get("score")
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise BadInput(f"{path}: judgement {number} has no number under 'score'")
    if score == -1:
        return None
    if not LOW <= score <= HIGH:
        raise BadInput(f"{path}: judgement {number} has the score {score:g}, outside {LOW:g} to {HIGH:g}")
    return float(score)
