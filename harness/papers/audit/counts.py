"""Which printed percentages are counts of right answers, and how likely that is by chance.

A share of n problems printed with d places has about n possible values among the 100 * 10^d + 1 that the places
allow; their share is the density, the chance that a random value is a count. k of m cells that are counts have
the binomial tail as chance, times the number of readings tried. Tables round, and some truncate: both are tried.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtrc

from harness.papers.audit.finding import RARE, AuditFinding, is_mean, probability, size
from harness.records import printed
from harness.records.printed import PrintedCell

PARTS = {1: "whole", 2: "half", 4: "quarter"}
INFORMATIVE = 0.55  # above this density nearly every value is a count, so a count means nothing
SEARCHED = range(20, 1001)  # sizes tried if no known one fits
FIT = 0.75  # share of cells that a searched size must fit


@dataclass(frozen=True)
class CountReading:
    """``n`` problems, verdicts in parts of ``1/parts``, ``draws`` completions each; ``cut``: also truncated values."""

    n: int
    parts: int
    draws: int = 1
    cut: bool = False

    @property
    def total(self) -> int:
        """Steps between 0 and 100 percent."""
        return self.n * self.parts * self.draws

    def words(self) -> str:
        """The reading for people: whole counts of 164, quarter counts of 218, whole counts of 30 x 12 = 360."""
        times = f" x {self.draws} = {self.n * self.draws}" if self.draws > 1 else ""
        return f"{PARTS[self.parts]} counts of {self.n}{times}" + (", rounded or cut" if self.cut else "")


def fits(cell: PrintedCell, reading: CountReading) -> bool:
    """Whether the printed value is a count under ``reading``."""
    return rounds(cell, reading.total) or (reading.cut and truncates(cell, reading.total))


def rounds(cell: PrintedCell, total: int) -> bool:
    """Whether some k of ``total``, in percent, rounds to the printed value (halves either way)."""
    return bool(_rounds(cell.value, cell.step, total))


def _rounds(values: ArrayLike, steps: ArrayLike, totals: ArrayLike) -> NDArray[np.bool_]:
    """:func:`rounds` for arrays of values, their steps, and totals, which broadcast."""
    value, step, total = map(np.asarray, (values, steps, totals))
    k = np.rint(value / 100 * total)
    near = [(j >= 0) & (j <= total) & (np.abs(100 * j / total - value) <= step / 2 + 1e-9) for j in (k - 1, k, k + 1)]
    return near[0] | near[1] | near[2]


def truncates(cell: PrintedCell, total: int) -> bool:
    """Whether some k of ``total`` is printed as the value if truncated, not rounded."""
    k = math.ceil(cell.value / 100 * total - 1e-9)
    return k <= total and 0 <= 100 * k / total - cell.value < cell.step * (1 - 1e-9)


@cache
def density(reading: CountReading, decimals: int) -> float:
    """Share of the printable values from 0 to 100 that are counts under ``reading``."""
    places, total = 100 * 10**decimals, reading.total
    if total >= places:
        return 1.0
    values = {round(k * places / total) for k in range(total + 1)}
    if reading.cut:
        values |= {k * places // total for k in range(total + 1)}
    return len(values) / (places + 1)


def chance(fit: int, cells: Sequence[PrintedCell], reading: CountReading) -> float:
    """The probability that at least ``fit`` random values are counts; places may differ between cells."""
    shares = [density(reading, cell.decimals) for cell in cells]
    # The tail itself; binom.sf, which examines its arguments first, took a third of an audit.
    return float(bdtrc(fit - 1, len(cells), sum(shares) / len(shares)))


def neighbours(cell: PrintedCell, reading: CountReading) -> str:
    """The counts on either side: 98/164 = 59.76, 99/164 = 60.37; quarter counts as 154.25/218 = 70.76."""
    n, k = reading.n * reading.draws, math.floor(cell.value / 100 * reading.total)
    counts = (j / reading.parts for j in (k, k + 1) if j <= reading.total)
    return ", ".join(f"{count:g}/{n} = {100 * count / n:.{cell.decimals}f}" for count in counts)


def check(cells: Sequence[PrintedCell]) -> Iterator[AuditFinding]:
    """Findings of every column of percentages, table by table."""
    able = [c for c in cells if c.unit == "percent" and c.exact and not is_mean(c)]
    for column in printed.grouped(able, lambda c: (*c.table, c.setting, c.benchmark, c.metric)).values():
        if (column[0].samples or 1) > 1 and column[0].metric.startswith("pass@"):
            continue  # an estimate over subsets has no grid
        yield from _column(column)


def _column(column: Sequence[PrintedCell]) -> Iterator[AuditFinding]:
    first = column[0]
    where = f"{first.locator}, {first.benchmark}"
    tried = [(reading, *_fit(column, reading)) for reading in readings(first)]
    # Of the readings that chance does not explain, take the least likely one; of equal ones the coarsest.
    tried.sort(key=lambda attempt: (attempt[2], attempt[0].total, attempt[0].cut))
    if tried and tried[0][2] * len(tried) < 0.05:
        reading, fit, p = tried[0]
        yield _counts(where, column, reading, fit, p * len(tried), len(tried))
        yield from _strangers(where, column, reading, fit)
        return
    if best := _searched(column):
        reading, fit, p = best
        yield _counts(where, column, reading, fit, p, len(SEARCHED), searched=True)
        yield from _strangers(where, column, reading, fit)
    elif tried:
        yield _unexplained(where, column, tried)


def _unexplained(
    where: str, column: Sequence[PrintedCell], tried: Sequence[tuple[CountReading, int, float]]
) -> AuditFinding:
    """No reading is notable: nearly all values are counts, or chance gives as many, or the cells are not counts."""
    reading, fit, p = min(tried, key=lambda attempt: attempt[0].total)
    share = density(reading, column[0].decimals)
    if share > INFORMATIVE:
        statement = f"counting says nothing: {100 * share:.0f} % of the printable values are {reading.words()}"
    elif fit == len(column):
        statement = f"{fit} of {len(column)} cells are {reading.words()}, which chance may give"
    else:
        statement = (
            f"{fit} of {len(column)} cells are {reading.words()}: another set, a mean over completions, or chance"
        )
    # Several cells of which most are not counts of the n that the paper or the set gives are worth a look.
    notable = share <= INFORMATIVE and len(column) >= 3 and fit < len(column) / 2
    return AuditFinding("count", where, statement, [_sum(column, reading, fit, p)], notable, p, column)


def readings(cell: PrintedCell) -> list[CountReading]:
    """The possible readings of a cell as a count: its n or the public set's sizes, with finer parts if judged."""
    known = size(cell)
    sizes = [cell.n] if cell.n else list(known["n"]) if known else []
    judged = bool(cell.judge) or bool(known and known.get("judged"))
    draws = cell.samples or 1
    # With several evaluation seeds the printed value is their mean.
    number = cell.seeds.split(" ")[0]
    if "evaluation" in cell.seeds and number.isdecimal():
        draws *= int(number)
    return [
        CountReading(n, parts, draws, cut)
        for n in sizes
        for parts in (PARTS if judged else (1,))
        for cut in (False, True)
    ]


def _fit(column: Sequence[PrintedCell], reading: CountReading) -> tuple[int, float]:
    fit = sum(fits(cell, reading) for cell in column)
    return fit, chance(fit, column, reading)


def _searched(column: Sequence[PrintedCell]) -> tuple[CountReading, int, float] | None:
    """The size whose whole counts fit best if the known ones do not; corrected for the sizes tried."""
    best = None
    # All sizes at once: a thousand sizes for every column of every paper.
    values, steps = ([getattr(cell, part) for cell in column] for part in ("value", "step"))
    fitting = _rounds(values, steps, np.array(SEARCHED)[:, None]).sum(axis=1)  # [sizes]
    for n, fit in zip(SEARCHED, fitting.tolist(), strict=True):
        reading = CountReading(n, 1)
        if density(reading, column[0].decimals) > INFORMATIVE:
            break
        if fit < FIT * len(column):
            continue
        p = chance(fit, column, reading)
        if best is None or p < best[2]:
            best = (reading, fit, p)
    if best is None or (p := best[2] * len(SEARCHED)) > RARE:
        return None
    return best[0], best[1], p


def _counts(
    where: str,
    column: Sequence[PrintedCell],
    reading: CountReading,
    fit: int,
    p: float,
    tried: int,
    searched: bool = False,
) -> AuditFinding:
    lines = [
        _sum(column, reading, fit, p / tried)
        + (f"; {tried} readings tried: {probability(min(p, 1))}" if tried > 1 else "")
    ]
    if fit < len(column):
        lines += _by_method(column, reading)
    how = " (a size found by search, not stated)" if searched else ""
    statement = f"{fit} of {len(column)} cells are {reading.words()}{how}"
    # If all cells are counts of the n of the paper or the public set, that is as expected.
    return AuditFinding("count", where, statement, lines, searched or fit < len(column), min(p, 1.0), column)


def _by_method(column: Sequence[PrintedCell], reading: CountReading) -> Iterator[str]:
    """Methods whose cells all fit, and the others: this reveals rows that were not obtained in the same way."""
    full, part = [], []
    for method, own in printed.grouped(column, lambda c: c.method).items():
        fit = sum(fits(cell, reading) for cell in own)
        (full if fit == len(own) else part).append((method, fit, own))
    for words, group in (("all cells fit", full), ("not all cells fit", part)):
        cells = [cell for _, _, own in group for cell in own]
        if cells:
            fit = sum(f for _, f, _ in group)
            names = ", ".join(f"{method} {f}/{len(own)}" for method, f, own in group)
            yield f"{words}: {names}; together {fit} of {len(cells)}, chance {probability(chance(fit, cells, reading))}"


def _strangers(where: str, column: Sequence[PrintedCell], reading: CountReading, fit: int) -> Iterator[AuditFinding]:
    """The cells that are not counts although most of their column are."""
    if fit < len(column) / 2:
        return
    for cell in column:
        if fits(cell, reading):
            continue
        finer = [CountReading(reading.n, parts, reading.draws, True) for parts in PARTS if parts > reading.parts]
        matches = [other.words() for other in finer if fits(cell, other)]
        lines = [f"neighbours: {neighbours(cell, reading)}"]
        lines += [f"it is one of the {words}" for words in matches[:1]]
        if truncates(cell, reading.total):
            lines.append("cut instead of rounded, it is one")
        elif finer and not matches:
            shares = ", ".join(f"{100 * density(o, cell.decimals):.1f} % of values are {o.words()}" for o in finer)
            lines.append(f"no half or quarter count either ({shares})")
        statement = f"{cell.text} ({cell.method}, {cell.student}) is none of the {reading.words()}"
        yield AuditFinding("count", where, statement, lines, True, cells=[cell])


def _sum(column: Sequence[PrintedCell], reading: CountReading, fit: int, p: float) -> str:
    share = sum(density(reading, cell.decimals) for cell in column) / len(column)
    return (
        f"{100 * share:.1f} % of the printable values are {reading.words()}; "
        f"chance of {fit} or more of {len(column)}: {probability(p)}"
    )
