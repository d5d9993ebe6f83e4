"""Summarises a set of judgements: win rate, ties, position consistency, unparsed replies."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from harness.grading.judges.judgement import Judgement


@dataclass(frozen=True)
class WinRate:
    """Counts, and rates in [0, 1]; ``win_rate`` is the mean score of the answered items, a tie counting one half.

    ``position_consistency`` is the share of comparisons asked in both orders that have the same winner (or tie) in
    both, None if there are none. ``parse_failure_rate`` is the share of replies without a verdict.
    """

    win_rate: float | None
    standard_error: float | None
    wins: int
    losses: int
    ties: int
    unanswered: int
    position_consistency: float | None
    parse_failure_rate: float | None


def win_rate(judgements: Sequence[Judgement]) -> WinRate:
    """The summary of ``judgements``: alpaca_eval's ``get_winrate``, in fractions instead of per cent."""
    scores = [j.score for j in judgements if j.score is not None]
    unparsed = sum(j.unparsed for j in judgements)
    both = [j.by_order for j in judgements if len(j.by_order) == 2]
    return WinRate(
        win_rate=fmean(scores) if scores else None,
        standard_error=stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else None,
        wins=sum(score > 0.5 for score in scores),
        losses=sum(score < 0.5 for score in scores),
        ties=sum(score == 0.5 for score in scores),
        unanswered=len(judgements) - len(scores),
        position_consistency=fmean(_winner(a) == _winner(b) for a, b in both) if both else None,
        parse_failure_rate=unparsed / (len(scores) + unparsed) if scores or unparsed else None,
    )


def _winner(score: float) -> int:
    """1 the candidate, -1 the reference, 0 a tie."""
    return (score > 0.5) - (score < 0.5)
