"""Scores from several samples per problem: avg@k, unbiased pass@k, and maj@k over classes of equal answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

Row = Mapping[str, Any]


def by_problem(graded: Sequence[Row]) -> list[list[Row]]:
    """The samples of each problem."""
    problems: dict[str, list[Row]] = {}
    for row in graded:
        problems.setdefault(row["problem_id"], []).append(row)
    return list(problems.values())


def repeated(graded: Sequence[Row]) -> dict[str, Any]:
    """``avg@k`` and ``pass@1, 2, 4, … k`` where every problem has k > 1 samples, else nothing.

    pass@k is the unbiased estimator (arXiv 2107.03374): the share of draws of k samples that contain a right one.
    Sampling exactly k gives a noisy estimate; sample twice as many.
    """
    problems = by_problem(graded)
    k = min(map(len, problems), default=0)
    if k < 2:
        return {}
    from harness.stats.intervals import pass_at_k

    def passing(draws: int) -> float:
        right = [sum(row["score"] == 1.0 for row in rows) for rows in problems]
        return fmean(float(pass_at_k(len(rows), [c], draws)[0]) for rows, c in zip(problems, right, strict=True))

    # Powers of two below k, and k itself.
    sizes = [size for size in (1, 2, 4, 8, 16, 32, 64, 128) if size < k]
    average = fmean(fmean(row["score"] for row in rows) for rows in problems)
    return {"samples": k, f"avg@{k}": average} | {f"pass@{size}": passing(size) for size in [*sizes, k]}


def majority(graded: Sequence[Row], classes_of: Callable[[Sequence[str | None]], Sequence[int | None]]) -> float:
    """The share of problems whose most frequent answer is right; equally frequent answers share it.

    ``classes_of`` numbers the classes of equal answers, None for no answer: a sample without one does not vote.
    """
    return fmean(_vote(rows, classes_of([row["extracted"] for row in rows])) for rows in by_problem(graded))


def _vote(rows: Sequence[Row], classes: Sequence[int | None]) -> float:
    votes = Counter(number for number in classes if number is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    leading = [number for number, count in votes.items() if count == most]
    right = {number for row, number in zip(rows, classes, strict=True) if row["score"] == 1.0}
    return sum(number in right for number in leading) / len(leading)
