"""Metrics: how the graded completions of a task become one score with an interval.

A verdict scores one completion from 0 to 1. A metric says what the samples of a problem are worth together
(``of_problem``), how the problems become the score (``value``, ``interval``), and how verdicts count that were not
reached. Higher is always better, and scores lie in [0, 1]; tables show them times 100, with ``unit`` behind them.

A metric of your own is a class with a ``name``: in the file of the task that names it in ``metric``, imported there, or
installed under the entry point group ``harness.metrics``::

    class BestOfN(Metric):
        name = "best@n"

        def of_problem(self, scores):
            return max(scores)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

WRONG, LEFT_OUT = "wrong", "left out"


class Metric:
    """The mean over problems of the mean over their samples, unless a subclass says otherwise."""

    name: ClassVar[str]
    errors_count_as: ClassVar[str] = WRONG  # or LEFT_OUT: a verdict that was not reached leaves the mean
    right_from: ClassVar[float] = 1.0  # the least score of a right answer
    unit: ClassVar[str] = "%"  # "" for a number from 0 to 100 that is no percentage

    def of_problem(self, scores: Sequence[float]) -> float:
        """The value in [0, 1] of one problem, from the scores [K] of its samples."""
        return sum(scores) / len(scores)

    def by_problem(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        """The value of every problem that has a verdict, in the order of ``rows``."""
        found: dict[str, list[float]] = {}
        for row in self.counted(rows):
            found.setdefault(row["problem_id"], []).append(row["score"])
        return {problem: self.of_problem(scores) for problem, scores in found.items()}

    def counted(self, rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The graded rows that enter the score."""
        return [row for row in rows if not (row["error"] and self.errors_count_as == LEFT_OUT)]

    def aggregate(self, rows: Iterable[Mapping[str, Any]]) -> float:
        """The score in [0, 1] of graded rows."""
        return self.value(list(self.by_problem(rows).values()))

    def value(self, problems: Sequence[float]) -> float:
        """The score, from the values [N] of the problems."""
        return sum(problems) / len(problems)

    def interval(self, problems: Sequence[float]) -> tuple[float, float, str]:
        """The ends of the 95 % interval of the score, and the name of its method.

        Wilson's where every problem is right or wrong, else that of a mean.
        """
        from harness.stats import intervals  # numpy and scipy: lists and help do without

        if all(value in (0.0, 1.0) for value in problems):
            low, high = intervals.wilson(round(sum(problems)), len(problems))
            return low, high, "Wilson"
        low, high = intervals.mean_interval(problems)
        return low, high, "mean of items"


class Accuracy(Metric):
    """The share of right answers."""

    name = "accuracy"


class PassAt1(Metric):
    """The share of programs that pass; several samples of a problem are averaged."""

    name = "pass@1"


class WinRateMetric(Metric):
    """The share of comparisons won, a tie counting one half, among those with a verdict (alpaca_eval's win rate)."""

    name = "win_rate"
    errors_count_as = LEFT_OUT
    right_from = 0.5  # a right response need only tie with a right reference


class LmEvalMetric(Metric):
    """The first metric of an lm-eval task that lies in [0, 1], averaged over the documents."""

    name = "lm-eval"


class RecordedMetric(Metric):
    """The metric of a record, known by its card, whose code need not be at hand."""

    def __init__(self, card: Mapping[str, Any]):
        self.problems = card.get("by_problem")

    def by_problem(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        return dict(self.problems) if self.problems is not None else super().by_problem(rows)


SHIPPED: dict[str, type[Metric]] = {found.name: found for found in (Accuracy, PassAt1, WinRateMetric, LmEvalMetric)}


def card(metric: Metric, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a record keeps of a metric that does not ship, so that tables do without its code."""
    if type(metric) is SHIPPED.get(metric.name):
        return {}
    return {"errors_count_as": metric.errors_count_as, "unit": metric.unit, "by_problem": metric.by_problem(rows)}


def of_record(record: Mapping[str, Any]) -> Metric:
    """The metric of a record. One without a card that does not ship is read as a mean."""
    if (kept := record.get("metric_card")) is not None:
        return RecordedMetric(kept)
    return SHIPPED.get(record["metric"], Metric)()


def unit_of(record: Mapping[str, Any]) -> str:
    """What stands behind the scores of a record times 100."""
    return record.get("metric_card", {}).get("unit", Metric.unit)
