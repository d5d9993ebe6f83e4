"""Compares printed means with the mean of their row or column."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from harness.papers.audit.finding import AuditFinding, is_mean
from harness.records import printed
from harness.records.printed import PrintedCell

_NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6}


def members(mean: PrintedCell, cells: Sequence[PrintedCell]) -> list[PrintedCell]:
    """The cells that ``mean`` averages: the rest of its row, or of its column if the mean is over pairs."""
    over_pairs = is_mean_of_pairs(mean)
    averaged = []
    for cell in cells:
        if is_mean(cell) or cell.table != mean.table or cell.unit != mean.unit or cell.metric != mean.metric:
            continue
        if (cell.method, cell.setting) != (mean.method, mean.setting):
            continue
        same_pair = (cell.student, cell.teacher) == (mean.student, mean.teacher)
        if cell.benchmark == mean.benchmark if over_pairs else same_pair:
            averaged.append(cell)
    return averaged


def is_mean_of_pairs(cell: PrintedCell) -> bool:
    """Whether a mean runs over students, not over benchmarks."""
    return cell.student.casefold().startswith(("mean of", "average", "avg"))


def check(cells: Sequence[PrintedCell]) -> Iterator[AuditFinding]:
    """One finding for every mean that differs from its members' mean, and one per table for the others."""
    rounding = "within the rounding of the printed places, or truncated instead of rounded"
    for table in printed.grouped((c for c in cells if is_mean(c)), lambda c: c.table).values():
        right, short = 0, []
        for mean in table:
            beside = members(mean, cells)
            if len(beside) < 2 or (_stated(mean) or len(beside)) != len(beside):
                short.append(mean)
            elif abs(_mean(beside) - mean.value) <= _slack(mean, beside) or _cut(mean, beside):
                right += 1
            else:
                yield _wrong(mean, beside)
        where = table[0].locator
        if right:
            statement = f"{right} of {len(table)} printed means are the means of their rows"
            yield AuditFinding("mean", where, statement, [rounding], False)
        if short:
            names = ", ".join(dict.fromkeys(mean.benchmark for mean in short))
            statement = f"{len(short)} means cannot be checked ({names})"
            yield AuditFinding("mean", where, statement, ["their members are not all in the collection"], False)


def arithmetic(mean: PrintedCell, beside: Sequence[PrintedCell]) -> str:
    """The sum that gives the mean: (75.61 + 74.60)/2 = 75.105."""
    return f"({' + '.join(cell.text for cell in beside)})/{len(beside)} = {_mean(beside):.{mean.decimals + 1}f}"


def _wrong(mean: PrintedCell, beside: Sequence[PrintedCell]) -> AuditFinding:
    statement = (
        f"{mean.text} is printed as {mean.benchmark} of {mean.method}, {mean.student}; "
        f"its row gives {_mean(beside):.{mean.decimals}f}"
    )
    difference = mean.value - _mean(beside)
    lines = [f"{arithmetic(mean, beside)}; difference {difference:+.{mean.decimals + 1}f}"]
    return AuditFinding("mean", mean.locator, statement, lines, True, cells=[mean, *beside])


def _mean(cells: Sequence[PrintedCell]) -> float:
    return sum(cell.value for cell in cells) / len(cells)


def _slack(mean: PrintedCell, beside: Sequence[PrintedCell]) -> float:
    """The tolerance of the printed places: half a step of the mean and half a step of its members."""
    return (mean.step + sum(cell.step for cell in beside) / len(beside)) / 2 + 1e-9


def _cut(mean: PrintedCell, beside: Sequence[PrintedCell]) -> bool:
    """Whether the mean equals that of its row, truncated instead of rounded."""
    half = sum(cell.step for cell in beside) / len(beside) / 2
    return _mean(beside) - half - 1e-9 < mean.value + mean.step and mean.value <= _mean(beside) + half + 1e-9


def _stated(mean: PrintedCell) -> int | None:
    """The number of members that a mean states: "mean of 5 benchmarks", "mean of three"."""
    match = re.search(r"\b(?:mean|average) (?:of|over)(?: the)? (\w+)", f"{mean.benchmark}; {mean.student}", re.I)
    if not match:
        return None
    return int(match[1]) if match[1].isdecimal() else _NUMBERS.get(match[1].casefold())
