"""Metrics: how the graded completions of a task become one score with an interval, and how that score is read.

A verdict scores one completion. A metric defines the value of a problem from its samples (``of_problem``), how
the problems become the score (``aggregate``, ``interval``), how verdicts that were not reached count
(``errors_count_as``), and the scale of all these numbers (``scale``): range, direction, unit and digits.
Tables, intervals, comparisons, figures, pages and exports read the scale only from here.

A metric of your own is a class with a ``name``: in the file of the task that names it in ``metric``, imported there, or
installed under the entry point group ``harness.metrics``::

    class Rating(Metric):
        name, scale = "rating", Scale(1, 10, digits=2)

    class HeldOutDivergence(Metric):
        name, scale, errors_count_as = "divergence", Scale(0, math.inf, "nats", 3, higher_is_better=False), LEFT_OUT
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, ClassVar

from harness import error_location, metric_contract, registry, user_code
from harness.errors import BadInput
from harness.metric_contract import LEFT_OUT, WRONG


@dataclass(frozen=True)
class Scale:
    """The numbers of a metric: from ``low`` to ``high``, either of which may be infinite, and how they are printed.

    Records, JSON and frames hold values of this range. Tables, sentences and figures print a value times ``times``
    with ``digits`` decimals. ``unit`` follows the metric's name in captions and a difference in sentences.
    """

    low: float
    high: float
    unit: str = ""
    digits: int = 1
    times: float = 1.0
    higher_is_better: bool = True

    @property
    def finite(self) -> bool:
        """Whether both ends of the range are numbers."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    @property
    def worst(self) -> float:
        """The worst value of the range, possibly infinite."""
        return self.low if self.higher_is_better else self.high

    @property
    def width(self) -> float:
        """The largest difference of two values, possibly infinite."""
        return self.high - self.low

    @property
    def points(self) -> str:
        """The unit of a difference: ``points`` if the metric has no unit or percent."""
        return "points" if self.unit in ("", "%") else self.unit

    @property
    def direction(self) -> str:
        """``lower is better`` or "", because readers expect that higher is."""
        return "" if self.higher_is_better else "lower is better"

    @property
    def caption(self) -> str:
        """The kind of printed numbers, in words: ``percent``, ``nats, lower is better``, ``from 1 to 10``."""
        ends = f"from {self.times * self.low:g} to {self.times * self.high:g}" if self.finite else ""
        return ", ".join(filter(None, ("percent" if self.unit == "%" else self.unit or ends, self.direction)))

    @property
    def counts(self) -> bool:
        """Whether a sum of scores counts right answers: 0 is wrong, 1 is right, and the mean is a percentage."""
        return (self.low, self.high) == (0.0, 1.0) and self.higher_is_better and self.unit == "%"

    def holds(self, value: Any) -> bool:
        """Whether ``value`` is a finite number of the range."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        return number and -math.inf < value < math.inf and self.low <= value <= self.high

    def shown(self, value: float) -> float:
        """A value, or a difference of values, as it is printed: 0.405 is 40.5 in percent."""
        return self.times * value

    def text(self, value: float) -> str:
        """A value with its digits: ``40.5``."""
        return f"{self.shown(value):.{self.digits}f}"

    def signed(self, difference: float) -> str:
        """A difference with its sign: ``+1.3``; what rounds to zero has no sign."""
        text = f"{self.shown(difference):+.{self.digits}f}"
        return text[1:] if float(text) == 0 else text

    def gain(self, value: float, other: float) -> float:
        """By how much ``value`` is better than ``other``; negative if it is worse."""
        return value - other if self.higher_is_better else other - value

    def place(self, value: float) -> float:
        """A sort key that puts the best value first."""
        return -value if self.higher_is_better else value

    def share(self, value: float) -> float:
        """The position of a value in a finite range: 0 at ``low``, 1 at ``high``."""
        return (value - self.low) / self.width

    def card(self) -> dict[str, Any]:
        """The scale as a record keeps it; an infinite end is None."""
        ends = [end if math.isfinite(end) else None for end in (self.low, self.high)]
        return {
            "range": ends, "unit": self.unit, "digits": self.digits, "times": self.times,
            "higher_is_better": self.higher_is_better,
        }  # fmt: skip


PERCENT = Scale(0.0, 1.0, "%", times=100.0)


class Metric:
    """The mean over problems of the mean over their samples, unless a subclass says otherwise."""

    name: ClassVar[str]
    errors_count_as: ClassVar[str] = WRONG  # the worst value; or LEFT_OUT: verdicts not reached are dropped
    right_from: ClassVar[float] = 1.0  # the lowest score of a right answer
    scale: Scale = PERCENT

    def of_problem(self, scores: Sequence[float]) -> float:
        """The value of one problem, from the scores [K] of its samples."""
        return sum(scores) / len(scores)

    def by_problem(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        """The value of every problem that has a verdict, in the order of ``rows``."""
        scores: dict[str, list[float]] = {}
        for row in self.counted(rows):
            scores.setdefault(row["problem_id"], []).append(self.scale.worst if row["error"] else row["score"])
        return {problem: self.of_problem(values) for problem, values in scores.items()}

    def counted(self, rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """The graded rows that enter the score."""
        return [row for row in rows if not (row["error"] and self.errors_count_as == LEFT_OUT)]

    def aggregate(self, problems: Sequence[float]) -> float:
        """The score, from the values [N] of the problems."""
        return sum(problems) / len(problems)

    @property
    def is_mean(self) -> bool:
        """Whether the score is the mean over problems, which is what tests between rows compare."""
        return type(self).aggregate is Metric.aggregate

    def interval(self, problems: Sequence[float]) -> tuple[float, float, str]:
        """The ends of the 95 % interval of the score, and the name of its method.

        Wilson's where every problem is right or wrong, else that of a mean in the range of the scale. A score that is
        no mean gets the bootstrap over problems.
        """
        from harness.stats import intervals  # numpy and scipy: lists and help do without

        if not self.is_mean:
            low, high = intervals.bootstrap_of(self.aggregate, problems)
            return low, high, "bootstrap over items"
        if self.scale.width == 1.0 and all(value in (self.scale.low, self.scale.high) for value in problems):
            low, high = intervals.wilson(round(sum(problems)), len(problems))
            return low, high, "Wilson"
        low, high = intervals.mean_interval(problems, limits=(self.scale.low, self.scale.high))
        return low, high, "mean of items" if self.scale.finite else "bootstrap over items"

    def is_right(self, score: float) -> bool:
        """Whether a verdict's score is that of a right answer."""
        return self.scale.gain(score, self.right_from) >= 0


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


class RougeL(Metric):
    """The overlap with a reference response in the order of its words: ROUGE-L's F-measure, shown from 0 to 100."""

    name, scale = "rougeL", Scale(0.0, 1.0, times=100.0)


class RatingOfTurns(Metric):
    """The mean rating of the turns of a conversation, from 1 to 10; missing ratings are left out.

    Ratings within a conversation are similar, so intervals and tests draw conversations, not turns: all
    problems ``NAME/TURN`` of one NAME are one.
    """

    name, scale, errors_count_as, right_from = "rating_of_turns", Scale(1, 10, digits=2), LEFT_OUT, 10.0

    def by_problem(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        return super().by_problem({**row, "problem_id": row["problem_id"].rpartition("/")[0]} for row in rows)


class LmEvalMetric(Metric):
    """The first metric of an lm-eval task that lies in [0, 1], averaged over the documents."""

    name = "lm-eval"


class RecordedMetric(Metric):
    """The metric of a record, described by its card; its code may be missing."""

    def __init__(self, record: Mapping[str, Any]):
        self.scale = scale_of(record)
        self.problems = record["metric_card"].get("by_problem")

    def by_problem(self, rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
        return dict(self.problems) if self.problems is not None else super().by_problem(rows)


_OURS = (Accuracy, PassAt1, WinRateMetric, RougeL, RatingOfTurns, LmEvalMetric)
SHIPPED: dict[str, type[Metric]] = {cls.name: cls for cls in _OURS}


def metric_of(task: Any) -> Metric:
    """The metric that a task, or its class, names: in its own file, shipped, or installed as a plugin.

    Raises BadInput for a name that leads nowhere or to two metrics, or for a metric that breaks its contract.
    """
    cls = task if isinstance(task, type) else type(task)
    name = task.metric
    # A task class made by ``under`` has no module of its own, but carries the module of the task's file.
    beside = vars(sys.modules[cls.__module__]).values() if cls.__module__ in sys.modules else ()
    own = [c for c in beside if isinstance(c, type) and issubclass(c, Metric) and getattr(c, "name", None) == name]
    own = [c for c in dict.fromkeys(own) if c is not SHIPPED.get(name)]
    # Two classes of one name, or one of the name of a metric that ships: either may be the one that was meant.
    if len(own) > 1 or (own and name in SHIPPED):
        other = f"at {error_location.of(own[1])}" if len(own) > 1 else "a metric that ships"
        raise BadInput(f"{error_location.of(own[0])}: metric {name!r} is also {other}; give one of them another name")
    if name in SHIPPED:
        return SHIPPED[name]()
    try:
        metric = own[0] if own else registry.find(registry.METRICS, name)
    except BadInput as error:
        raise BadInput(
            f"{error_location.of(cls, 'metric')}: task {cls.name}: {error}; write class MyMetric(Metric) with "
            f"name = {name!r} in the task's file, with from harness.metrics import Metric"
        ) from None
    if (metric, task.decoding.samples) not in _checked:
        metric_contract.check(metric, Metric, task.decoding.samples)
        _checked.add((metric, task.decoding.samples))
    return metric()


_checked: set[tuple[type[Metric], int]] = set()  # metrics that kept their contract, and for how many samples


def code_of(task: Any) -> dict[str, str]:
    """The identity of a user metric's code; part of the protocol."""
    code = user_code.identity(type(metric_of(task)))
    return {} if code == user_code.OURS else {"metric_code": code}


def card(metric: Metric, values: Mapping[str, float]) -> dict[str, Any]:
    """What a record keeps of a metric, so that tables do not need its code; empty for a shipped one in percent."""
    if type(metric) is SHIPPED.get(metric.name) and metric.scale == PERCENT:
        return {}
    own = {} if metric.is_mean else {"mean": False}
    return {"errors_count_as": metric.errors_count_as} | metric.scale.card() | own | {"by_problem": dict(values)}


def of_record(record: Mapping[str, Any]) -> Metric:
    """The metric of a record. An unknown one without a card is read as a mean."""
    if record.get("metric_card") is not None:
        return RecordedMetric(record)
    return SHIPPED.get(record["metric"], Metric)()


def is_mean(record: Mapping[str, Any]) -> bool:
    """Whether the score of a record is the mean over its problems."""
    return (record.get("metric_card") or {}).get("mean", True)


def scale_of(record: Mapping[str, Any]) -> Scale:
    """The scale of a record's scores. A card without a range comes from an older harness: a share, shown times 100."""
    card = record.get("metric_card")
    if card is None or "range" not in card:
        return PERCENT if card is None else Scale(0.0, 1.0, card["unit"], times=100.0)
    low, high = card["range"]
    return Scale(
        -math.inf if low is None else low,
        math.inf if high is None else high,
        card["unit"],
        card.get("digits", 1),
        card.get("times", 1.0),
        card.get("higher_is_better", True),
    )


# Scores from several samples per problem: avg@k, unbiased pass@k, and maj@k over classes of equal answers.

Row = Mapping[str, Any]


def by_problem(graded: Sequence[Row]) -> list[list[Row]]:
    """The samples of each problem."""
    problems: dict[str, list[Row]] = {}
    for row in graded:
        problems.setdefault(row["problem_id"], []).append(row)
    return list(problems.values())


def repeated(graded: Sequence[Row]) -> dict[str, Any]:
    """``avg@k`` and ``pass@1, 2, 4, … k`` if every problem has k > 1 samples, else nothing.

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
