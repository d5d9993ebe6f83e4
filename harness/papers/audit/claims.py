"""Checks statements of others about a paper's cells: each holds or does not, with the arithmetic."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.papers.audit import comparisons, counts, means, repeats, spread
from harness.papers.audit.counts import CountReading
from harness.papers.audit.finding import is_mean, problems
from harness.records import printed
from harness.records.printed import PrintedCell

Claim = Mapping[str, Any]  # as in a paper's file
Cells = Sequence[PrintedCell]
Checked = tuple[bool, list[str]]  # whether it holds, the arithmetic

_SELECT = {"locator": "locator", "source": "source", "setting": "setting"}
_AMONG = {"benchmarks": "benchmark", "methods": "method", "students": "student"}
_INTERVAL = re.compile(r"\[\s*([+-]?\d*\.?\d+)\s*,\s*([+-]?\d*\.?\d+)\s*\]")


@dataclass(frozen=True)
class CheckedClaim:
    """``text`` as stated; whether the cells confirm it; the arithmetic."""

    text: str
    holds: bool
    arithmetic: Sequence[str]


def check(stated: Sequence[Claim], cells: Cells) -> list[CheckedClaim]:
    """Every claim of a paper's file, computed from its cells."""
    checked = []
    for claim in stated:
        chosen = select(claim, cells)
        holds, lines = _KINDS[claim["kind"]](claim, chosen, cells) if chosen else (False, ["no cell is selected"])
        checked.append(CheckedClaim(claim["text"], holds, lines))
    return checked


def select(claim: Claim, cells: Cells) -> list[PrintedCell]:
    """The cells of a claim: those that match everything it names."""
    chosen = [
        c
        for c in cells
        if all(getattr(c, field) == claim[key] for key, field in _SELECT.items() if key in claim)
        and all(getattr(c, field) in claim[key] for key, field in _AMONG.items() if key in claim)
    ]
    # In other claims `values` are the expected results, not a selection.
    if claim["kind"] in ("count", "repeat", "within") and "values" in claim:
        chosen = [c for c in chosen if c.text in claim["values"]]
    return chosen


def _count(claim: Claim, chosen: Cells, _: Cells) -> Checked:
    """``fit`` of ``of`` cells are counts, rounded; or, where rounding gives another number, rounded or cut."""
    lines, fitting = [], {}
    for cut in (False, True):
        readings = {c.key: CountReading(claim.get("n") or problems(c) or 0, claim["parts"], 1, cut) for c in chosen}
        if any(reading.n == 0 for reading in readings.values()):
            return False, ["n is not known for every cell"]
        fit = [c for c in chosen if counts.fits(c, readings[c.key])]
        fitting[cut] = len(fit)
        sizes = ", ".join(dict.fromkeys(reading.words() for reading in readings.values()))
        others = ", ".join(f"{c.method} {c.text}" for c in chosen if c not in fit)
        lines.append(f"{len(fit)} of {len(chosen)} are {sizes}" + (f"; not: {others}" if others else ""))
    holds = len(chosen) == claim["of"] and claim["fit"] in fitting.values()
    return holds, lines if fitting[False] != fitting[True] else lines[:1]


def _mean(claim: Claim, chosen: Cells, cells: Cells) -> Checked:
    """The first of ``values`` is printed as a mean; the second is what its row gives."""
    printed_as, own_mean = claim["values"]
    for cell in chosen:
        beside = means.members(cell, cells) if is_mean(cell) and cell.text == printed_as else []
        if len(beside) > 1:
            value = sum(c.value for c in beside) / len(beside)
            holds = abs(value - float(own_mean)) <= cell.step / 2 + 1e-9 and own_mean != printed_as
            return holds, [means.arithmetic(cell, beside)]
    return False, [f"no mean is printed as {printed_as}"]


def _heads(_: Claim, chosen: Cells, __: Cells) -> Checked:
    for finding in comparisons.check(chosen):
        if finding.kind == "heads":
            return finding.notable, list(finding.arithmetic)
    return False, ["no two heads whose levels are known"]


def _repeat(claim: Claim, chosen: Cells, cells: Cells) -> Checked:
    """Every value is printed more than once, which is unlikely by chance."""
    same = printed.grouped(chosen, lambda c: c.text)
    lines = [f"{text}: {', '.join(f'{c.method} of {c.student}' for c in own)}" for text, own in same.items()]
    again = all(len(own) > 1 for own in same.values()) and set(same) == set(claim["values"])
    keys = {c.key for c in chosen}
    for finding in repeats.check([c for c in cells if c.table in {cell.table for cell in chosen}]):
        beside = {c.key for c in finding.cells}
        if keys <= beside or (len(same) > 1 and beside <= keys):
            lines += finding.arithmetic
            lines += [] if finding.notable else ["equal values; chance alone may give them"]
            return again and finding.notable, lines
    return False, [*lines, "no repeat is found"]


def _order(claim: Claim, chosen: Cells, _: Cells) -> Checked:
    """The first method has the first value, the second the other; the first is below."""
    lower, higher = (
        [c for c in chosen if c.method == method and c.text == value]
        for method, value in zip(claim["methods"], claim["values"], strict=True)
    )
    if not lower or not higher:
        return False, ["the cells are not those that the statement names"]
    difference = lower[0].value - higher[0].value
    return difference < 0, [f"{lower[0].text} - {higher[0].text} = {difference:+.{lower[0].decimals}f}"]


def _differ(claim: Claim, chosen: Cells, _: Cells) -> Checked:
    own = [c for c in chosen if c.text in claim["values"]]
    for group in printed.grouped(own, comparisons.identity).values():
        if {c.text for c in group} == set(claim["values"]):
            return True, [f"{c.locator} {c.text}" for c in group]
    return False, ["no cell has these values"]


def _within(_: Claim, chosen: Cells, cells: Cells) -> Checked:
    """The highest and the lowest differ by at most two standard errors of the difference, half of a 95 % interval."""
    low, high = min(chosen, key=lambda c: c.value), max(chosen, key=lambda c: c.value)
    words = f"{high.method} {high.text} - {low.method} {low.text} = {high.value - low.value:.{high.decimals}f}"
    error = spread.of_difference(high, low, cells)
    if error is None:
        return _interval(chosen, words)
    return high.value - low.value < 2 * error[0], [f"{words}, the extremes of {len(chosen)}; {error[1]}"]


def _interval(chosen: Cells, words: str) -> Checked:
    """Without n or spread, only an interval in the cells' notes can tell."""
    for cell in chosen:
        if match := _INTERVAL.search(cell.note):
            low, high = (float(word) for word in match.groups())
            return low <= 0 <= high, [f"{words}; printed paired interval [{low:+g}, {high:+g}]"]
    return False, [f"{words}; no standard error can be computed"]


def _range(claim: Claim, chosen: Cells, _: Cells) -> Checked:
    """The values run from the first of ``values`` to the second."""
    low, high = min(chosen, key=lambda c: c.value), max(chosen, key=lambda c: c.value)
    line = f"{len(chosen)} cells, {low.method} {low.text} to {high.method} {high.text}"
    return [low.text, high.text] == claim["values"], [line]


_KINDS = {
    "count": _count,
    "mean": _mean,
    "heads": _heads,
    "repeat": _repeat,
    "order": _order,
    "differ": _differ,
    "within": _within,
    "range": _range,
}
