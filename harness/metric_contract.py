"""Checks what a metric of one's own provides: its parts before any work, and every number that it gives.

Each function raises with FILE:LINE of the part, its value and the expected one: BadInput before any work, RunFailed
for a score. The checks take any class as a metric, because :mod:`harness.metrics` imports them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from types import MappingProxyType
from typing import Any

from harness import error_location
from harness.contract_checks import read_names, refuse_misspelt
from harness.errors import BadInput, RunFailed

WRONG, LEFT_OUT = "wrong", "left out"
_PROBLEMS = 6  # of the made-up scores


def check(metric: type[Any], contract: type[Any], samples: int) -> None:
    """Checks the parts of a metric, then tries them on made-up scores of ``samples`` samples a problem.

    Raises BadInput.
    """
    refuse_misspelt(metric, contract, "metric", ())
    _nothing_unread(metric, contract)
    if fault := _fault(metric, type(contract.scale)):
        part, reason = fault
        raise BadInput(f"{_where(metric, part)}: {part} of metric {metric.name} {reason}")
    with error_location.faults_as(BadInput, "a metric is made without arguments", called=metric):
        made = metric()
    with error_location.faults_as(BadInput, f"tried on {_PROBLEMS} made-up problems", called=metric):
        _try(made, samples)


def _nothing_unread(metric: type[Any], contract: type[Any]) -> None:
    """Refuses a public function that is not a part of a metric and that its file never calls: it has no effect."""
    parts = sorted(name for name, part in vars(contract).items() if callable(part) and not name.startswith("_"))
    for cls in metric.__mro__[: metric.__mro__.index(contract)]:
        for name, part in vars(cls).items():
            if callable(part) and not name.startswith("_") and name not in parts and name not in read_names(cls):
                raise BadInput(
                    f"{error_location.of(cls, name)}: {name} is no part of a metric, and nothing calls it; the parts "
                    f"are {', '.join(parts)} (name your own helper _{name})"
                )


def _fault(metric: type[Any], kind: type[Any]) -> tuple[str, str] | None:
    """The first fact of a metric that breaks its contract, and how; None for a sound one."""
    scale = metric.scale
    if metric.errors_count_as not in (WRONG, LEFT_OUT):
        return "errors_count_as", f"is {metric.errors_count_as!r}; it is one of {(WRONG, LEFT_OUT)}"
    if not isinstance(scale, kind):
        return "scale", f"is {scale!r:.60}; harness.metrics.Scale(low, high, unit) is wanted"
    numbers = all(isinstance(n, int | float) and not isinstance(n, bool) for n in (scale.low, scale.high, scale.times))
    if not (numbers and scale.low < scale.high and math.isfinite(scale.times) and scale.times > 0):
        return "scale", f"is {scale}; low must be below high, and times a positive number"
    if not isinstance(scale.unit, str) or type(scale.digits) is not int or not 0 <= scale.digits <= 12:
        return "scale", f"is {scale}; its unit is text, its digits a whole number from 0 to 12"
    if len(scale.unit) > 60 or not (scale.unit.isprintable()):
        return "scale", f"has the unit {scale.unit!r:.60}; up to 60 printable characters are wanted"
    if metric.errors_count_as == WRONG and not math.isfinite(scale.worst):
        return "scale", "has no worst value for errors; set errors_count_as = LEFT_OUT"
    right = metric.right_from
    if isinstance(right, bool) or not isinstance(right, int | float) or math.isnan(right):
        return "right_from", f"is {right!r:.60}; the score of a right answer is wanted, a number"
    return None


def _try(metric: Any, samples: int) -> None:
    """Tries of_problem, aggregate and interval, which take numbers alone, on made-up scores of the metric's scale."""
    endless = itertools.cycle(_spread(metric.scale))
    problems = [[next(endless) for _ in range(samples)] for _ in range(_PROBLEMS)]

    def values() -> list[float]:
        return [number(metric, "of_problem", metric.of_problem(list(scores)), BadInput) for scores in problems]

    # Called twice: a score that chance decides cannot be repeated.
    first, second = values(), values()
    _same(metric, "of_problem", first, second)
    value, low, high, _ = summary(metric, first, BadInput)
    _same(metric, "aggregate", value, number(metric, "aggregate", metric.aggregate(list(first)), BadInput))
    _same(metric, "interval", (low, high), summary(metric, first, BadInput)[1:3])
    slack = 1e-9 * max(1.0, abs(value))
    if not low - slack <= value <= high + slack:
        reason = f"gave {low:g} to {high:g} around the score {value:g}, which lies outside"
        raise BadInput(f"{_where(metric, 'interval')}: interval of metric {metric.name} {reason}")


def _spread(scale: Any) -> list[float]:
    """Scores of a scale, far apart; only right and wrong ones if the scale counts right answers."""
    if scale.finite:
        shares = (1.0, 0.0, 1.0, 1.0, 0.0) if scale.counts else (1.0, 0.0, 0.5, 0.25, 0.75)
        return [scale.low + share * scale.width for share in shares]
    steps = (2.0, 0.5, 1.0, 3.0, 1.5)
    if math.isfinite(scale.high):
        return [scale.high - step for step in steps]
    return [(scale.low if math.isfinite(scale.low) else -1.75) + step for step in steps]


def _same(metric: Any, part: str, first: Any, second: Any) -> None:
    if first != second:
        reason = "gave two results for the same scores; seed what is random in it"
        raise BadInput(f"{_where(metric, part)}: {part} of metric {metric.name} {reason}")


def by_problem(metric: Any, graded: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The value of every problem, once :func:`counted` has passed: the metric cannot change the rows that it reads.

    Raises RunFailed.
    """
    part = "by_problem" if _is_own(metric, "by_problem") else "of_problem"
    values = metric.by_problem([MappingProxyType(dict(row)) for row in graded])
    if not isinstance(values, Mapping) or not all(isinstance(problem, str) for problem in values):
        reason = f"gave {error_location.describe(values)}; a dict of problem ids and numbers is wanted"
        raise RunFailed(f"{_where(metric, part)}: {part} of metric {metric.name} {reason}")
    if not values and not all(row["error"] for row in graded):
        raise RunFailed(f"{_where(metric, part)}: {part} of metric {metric.name} kept none of {len(graded)} verdicts")
    return {problem: number(metric, part, value, RunFailed) for problem, value in values.items()}


def counted(metric: Any, graded: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows that enter the score. Raises RunFailed."""
    rows = metric.counted([MappingProxyType(dict(row)) for row in graded])
    if not isinstance(rows, Iterable) or not all(isinstance(row, Mapping) and "score" in row for row in rows):
        reason = f"gave {error_location.describe(rows)}; a list of some of the graded rows is wanted"
        raise RunFailed(f"{_where(metric, 'counted')}: counted of metric {metric.name} {reason}")
    return list(rows)


def summary(metric: Any, problems: Sequence[float], kind: type[Exception]) -> tuple[float, float, float, str]:
    """The score of the problems [N], the ends of its interval within the scale, and how the interval was computed."""
    value = number(metric, "aggregate", metric.aggregate(list(problems)), kind)
    given = metric.interval(list(problems))
    where = f"{_where(metric, 'interval')}: interval of metric {metric.name}"
    if not isinstance(given, tuple | list) or len(given) != 3:
        raise kind(f"{where} gave {error_location.describe(given)}; (low, high, its method in words) is wanted")
    *ends, how = given
    if not all(isinstance(end, Real) and not isinstance(end, bool) for end in ends):
        raise kind(f"{where} gave the ends {ends!r:.60}; two numbers are wanted")
    low, high = map(float, ends)
    # NaN fails every comparison.
    if not -math.inf < low <= high < math.inf:
        raise kind(f"{where} gave {ends[0]!r:.20} to {ends[1]!r:.20}; two numbers in order are wanted")
    if not isinstance(how, str) or len(how) > 60 or not how.isprintable():
        raise kind(f"{where} names its method {how!r:.60}; up to 60 printable characters are wanted")
    # An interval may reach beyond the scale, as that of a normal distribution does; its reported ends may not.
    return value, max(metric.scale.low, low), min(metric.scale.high, high), how


def number(metric: Any, part: str, value: Any, kind: type[Exception]) -> float:
    """``value`` as a float of the metric's scale. NumPy's numbers are numbers, True is not."""
    scale = metric.scale
    real = isinstance(value, Real) and not isinstance(value, bool)
    try:
        if real and scale.holds(float(value)):
            return float(value)
    except OverflowError:  # an integer of 400 digits
        pass
    fix = ": float(...)" if not real and hasattr(value, "__float__") else ""
    raise kind(
        f"{_where(metric, part)}: {part} of metric {metric.name} gave {value!r:.40}; a number from {scale.low:g} to "
        f"{scale.high:g} is wanted{fix}"
    )


def _is_own(metric: Any, part: str) -> bool:
    """Whether a metric has a part of its own in user code."""
    cls = metric if isinstance(metric, type) else type(metric)
    owner = next((c for c in cls.__mro__ if part in vars(c)), cls)
    return not owner.__module__.startswith("harness.")


def _where(metric: Any, part: str) -> str:
    """FILE:LINE of a part of a metric, or of the metric where the part is inherited from the harness."""
    cls = metric if isinstance(metric, type) else type(metric)
    return error_location.of(cls, part) if _is_own(cls, part) else error_location.of(cls)
