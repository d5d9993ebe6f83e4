"""Values printed more than once, and how often chance repeats one.

By chance, a value of a column takes each of the G values in the column's range (its printed places, or the
counts of n if its cells are counts) with probability 1/G. Methods with similar scores coincide more often, so
the probabilities are lower bounds; a repeat is notable if even ten times the bound is small.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

from scipy.stats import binom

from harness.papers.audit import counts
from harness.papers.audit.finding import RARE, AuditFinding, bare, is_mean, probability
from harness.records import printed
from harness.records.printed import PrintedCell

Row = tuple[str, str, str, str, str, str]


def check(cells: Sequence[PrintedCell]) -> Iterator[AuditFinding]:
    """Rows that repeat, then pairs whose columns repeat for several methods, then single values."""
    cells = [cell for cell in cells if cell.exact and not is_mean(cell) and cell.unit not in ("FLOPs", "GPU hours")]
    explained: set[frozenset[tuple[str, ...]]] = set()
    for finding in (*_rows(cells), *_columns(cells)):
        explained |= {frozenset((a.key, b.key)) for a, b in combinations(finding.cells, 2) if a.text == b.text}
        yield finding
    yield from _single(cells, explained)


def grid(column: Sequence[PrintedCell]) -> int:
    """The number of distinct values in the range of ``column``."""
    low, high = min(cell.value for cell in column), max(cell.value for cell in column)
    step = max(cell.step for cell in column)
    first = column[0]
    for reading in counts.readings(first) if first.unit == "percent" else ():
        # Counts of n are further apart than the printed places.
        if counts.density(reading, first.decimals) < 1 and all(counts.fits(cell, reading) for cell in column):
            step = max(step, 100 / reading.total)
            break
    return max(1, round((high - low) / step)) + 1


def coincidence(column: Sequence[PrintedCell]) -> float:
    """Probability that some two values of ``column`` are equal by chance (the birthday sum)."""
    pairs = math.comb(len(column), 2)
    return 1 - math.exp(-pairs / grid(column))


def _rows(cells: Sequence[PrintedCell]) -> Iterator[AuditFinding]:
    """Two rows that are equal in every shared column, with at least two."""
    columns = _by_column(cells)
    rows = printed.grouped(cells, _row)
    tried = math.comb(len(rows), 2)
    for (left, one), (right, other) in combinations(rows.items(), 2):
        if left[:2] == right[:2] and left[3:5] == right[3:5] and bare(left[2]) == bare(right[2]):
            continue  # one row under two settings
        beside = {(c.benchmark, c.metric): c for c in other}
        shared = [(c, beside[c.benchmark, c.metric]) for c in one if (c.benchmark, c.metric) in beside]
        equal = [(a, b) for a, b in shared if a.text == b.text]
        if len(equal) < 2 or len(equal) < len(shared):
            continue
        if left[:2] != right[:2] and _same_model(one[0], other[0]):
            continue  # one row printed in two tables is expected
        sizes = [grid([*columns[_column(a)], b]) for a, b in equal]
        p = math.prod(1 / size for size in sizes)
        names = " and ".join(f"{row[0].locator}: {row[0].method}, {_pair(row[0])}" for row in (one, other))
        values = ", ".join(f"{a.benchmark} {a.text}" for a, _ in equal)
        yield _finding(
            one[0].locator,
            f"two rows print the same {len(equal)} values: {names} ({values})",
            f"{' x '.join(f'1/{size}' for size in sizes)} = {probability(p)} for two rows, "
            f"x {tried} pairs of rows = {probability(min(1.0, p * tried))}",
            min(1.0, p * tried),
            [cell for pair in equal for cell in pair],
        )


def _columns(cells: Sequence[PrintedCell]) -> Iterator[AuditFinding]:
    """A column in which two pairs of models share the values of two or more methods."""
    for column in _by_column(cells).values():
        pairs = printed.grouped(column, lambda c: (c.student, c.teacher))
        size, tried = grid(column), math.comb(len(pairs), 2)
        for one, other in combinations(pairs.values(), 2):
            beside = {cell.method: cell for cell in other}
            shared = [(cell, beside[cell.method]) for cell in one if cell.method in beside]
            equal = [(a, b) for a, b in shared if a.text == b.text]
            if len(equal) < 2 or len(equal) == len(shared):
                continue
            p = float(binom.sf(len(equal) - 1, len(shared), 1 / size))
            values = ", ".join(f"{a.method} {a.text}" for a, _ in equal)
            both = f"{_pair(one[0])} and {_pair(other[0])}"
            yield _finding(
                f"{column[0].locator}, {column[0].benchmark}",
                f"{len(equal)} of {len(shared)} methods print the same for {both}: {values}",
                f"{size} values lie in the column's range; chance of {len(equal)} or more equal of {len(shared)}: "
                f"{probability(p)}, x {tried} pairs of models = {probability(min(1.0, p * tried))}",
                min(1.0, p * tried),
                [cell for pair in equal for cell in pair],
            )


def _single(cells: Sequence[PrintedCell], explained: set[frozenset[tuple[str, ...]]]) -> Iterator[AuditFinding]:
    for column in _by_column(cells).values():
        same = {text: own for text, own in printed.grouped(column, lambda c: c.text).items() if len(own) > 1}
        fresh = {
            text: own
            for text, own in same.items()
            if any(frozenset((a.key, b.key)) not in explained for a, b in combinations(own, 2))
        }
        if not fresh:
            continue
        p, size = coincidence(column), grid(column)
        values = "; ".join(f"{text}: {', '.join(_row_name(c, column) for c in own)}" for text, own in fresh.items())
        expected = math.comb(len(column), 2) / size
        repeats = sum(math.comb(len(own), 2) for own in same.values())
        yield _finding(
            f"{column[0].locator}, {column[0].benchmark}",
            f"values printed more than once: {values}",
            f"{len(column)} cells on {size} values in the column's range: {expected:.2g} equal pairs expected by "
            f"chance, {repeats} seen; at least one: {probability(p)}",
            p,
            [cell for own in fresh.values() for cell in own],
        )


def _finding(where: str, statement: str, arithmetic: str, p: float, cells: Sequence[PrintedCell]) -> AuditFinding:
    return AuditFinding("repeat", where, statement, [arithmetic], 10 * p < RARE, p, cells)


def _by_column(cells: Sequence[PrintedCell]) -> dict[tuple[str, ...], list[PrintedCell]]:
    return printed.grouped(cells, _column)


def _column(cell: PrintedCell) -> tuple[str, ...]:
    return (*cell.table, cell.benchmark, cell.metric)


def _row(cell: PrintedCell) -> Row:
    return (*cell.table, cell.method, cell.student, cell.teacher, cell.setting)


def _same_model(one: PrintedCell, other: PrintedCell) -> bool:
    """Whether two rows are of one method and pair by their names; a teacher's row does not depend on the student."""
    if bare(one.method) != bare(other.method) or bare(one.teacher) != bare(other.teacher):
        return False
    return bare(one.method) == "teacher" or bare(one.student) == bare(other.student)


def _pair(cell: PrintedCell) -> str:
    return f"{cell.student} <- {cell.teacher}" if cell.teacher else cell.student


def _row_name(cell: PrintedCell, column: Sequence[PrintedCell]) -> str:
    several = len({(c.student, c.teacher) for c in column}) > 1
    words = [cell.method, *([_pair(cell)] if several else []), *([cell.setting] if cell.setting else [])]
    return " of ".join(words[:2]) + (f" ({words[2]})" if len(words) > 2 else "")
