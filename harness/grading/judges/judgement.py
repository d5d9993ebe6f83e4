"""Judges: who says which of two responses to an instruction is better.

A judge has ``identity()``, everything that decides its word, and one of two forms::

    judge(comparisons) -> list[Judgement]                           engines that work in batches and may fail
    prefer(instruction, reference, candidate) -> (score, reason)    small deterministic judges

:func:`judge_all` calls either. ``opening`` makes one from the words of ``--judge``.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from harness.errors import BadInput

log = logging.getLogger(__name__)

FORMS = "openai:MODEL[@URL], hf:DIR_OR_ID, replay:FILE or longest"


@dataclass(frozen=True)
class PairToJudge:
    """Two responses to one instruction: the benchmark's ``reference`` and the ``candidate`` under test."""

    id: str
    instruction: str
    reference: str
    candidate: str


@dataclass(frozen=True)
class Judgement:
    """What a judge says of one comparison.

    ``score`` is the candidate's, in [0, 1] (0.5 is a tie), or None where the judge gave no verdict.
    ``by_order`` holds the candidate's score for each order asked, the reference shown first before the
    candidate shown first, so a judge of both orders gives two. ``unparsed`` marks a judge that replied
    without a verdict in its reply, as opposed to one that could not be reached.
    """

    score: float | None
    reason: str
    by_order: tuple[float, ...] = ()
    unparsed: bool = False


class Judge(Protocol):
    """The batch form. ``judge`` answers in the order it is asked and never raises for a single item."""

    def identity(self) -> dict[str, Any]: ...

    def judge(self, comparisons: Sequence[PairToJudge]) -> list[Judgement]: ...


class Longest:
    """alpaca_eval's trivial baseline: the longer response wins. It measures length and nothing else."""

    def __init__(self):
        log.warning("judge 'longest' measures length only: for plumbing, not for results")

    def identity(self) -> dict[str, Any]:
        return {"kind": "longest", "version": "1"}

    def prefer(self, instruction: str, reference: str, candidate: str) -> tuple[float, str]:
        gap = len(candidate) - len(reference)
        score = 0.5 if gap == 0 else float(gap > 0)
        return score, f"length gap {gap:+d} characters"


def judge_all(judge: Any, comparisons: Sequence[PairToJudge]) -> list[Judgement]:
    """The judgements of either form of judge, in the order of ``comparisons``."""
    if hasattr(judge, "judge"):
        return judge.judge(comparisons)
    return [Judgement(*judge.prefer(c.instruction, c.reference, c.candidate)) for c in comparisons]


def require_judge(task: str, judge: Any) -> Any:
    """``judge``, or BadInput naming the option that gives one."""
    if judge is None:
        raise BadInput(f"task {task} is graded by a judge: give one with --judge ({FORMS})")
    return judge
