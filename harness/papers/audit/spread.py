"""Standard errors from printed cells: claimed gains within one standard error, and missing seeds.

    SE of a share p over n problems     100 sqrt(p (1 - p) / n), an upper bound where several completions are averaged
    SE of a mean over k seeds           printed standard deviation / sqrt(k)
    SE of a difference                  sqrt(SE_1^2 + SE_2^2): unpaired, because papers print no pairs

A paired comparison of the same problems can be several times sharper; these errors use only the table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence

from harness.papers.audit import means
from harness.papers.audit.finding import AuditFinding, canonical, is_mean, is_reference, problems
from harness.records import printed
from harness.records.printed import PrintedCell

_COSTS = ("FLOPs", "GPU hours")


def of_difference(one: PrintedCell, other: PrintedCell, cells: Sequence[PrintedCell] = ()) -> tuple[float, str] | None:
    """The unpaired error of a difference in its unit, and its arithmetic; None if the paper does not allow one.

    A spread over training seeds takes precedence over the problems. One over evaluation seeds alone does not cover
    other problems or another training, so the problems count and the spread is only mentioned.
    """
    trained = [_of_seeds(cell, cells) for cell in (one, other)]
    drawn = [_of_problems(cell, cells) for cell in (one, other)]
    of_seeds, of_problems = (None if None in errors else _sum(errors) for errors in (trained, drawn))
    if of_seeds and ("evaluation" not in _seeds_said(one, other, cells) or of_problems is None):
        return of_seeds[0], f"SE over seeds {of_seeds[1]}"
    if of_problems is None:
        return None
    n = f"n {problems(one)}" if problems(one) else "from its members' n"
    alone = f"; over evaluation seeds alone {of_seeds[1]}" if of_seeds else ""
    return of_problems[0], f"SE over problems {of_problems[1]}, {n}, unpaired{alone}"


def _sum(errors: Sequence[float]) -> tuple[float, str]:
    one = math.hypot(*errors)
    return one, f"sqrt({errors[0]:.2f}^2 + {errors[1]:.2f}^2) = {one:.2f}"


def _seeds_said(one: PrintedCell, other: PrintedCell, cells: Sequence[PrintedCell]) -> str:
    own = [one, other, *(member for cell in (one, other) if is_mean(cell) for member in means.members(cell, cells))]
    return " ".join(cell.seeds for cell in own)


def _of_seeds(cell: PrintedCell, cells: Sequence[PrintedCell]) -> float | None:
    """Printed standard deviation over sqrt(seeds); a mean over benchmarks has the error of its members."""
    seeds = re.match(r"(\d+)", cell.seeds)
    if cell.spread and seeds:
        return float(cell.spread) / math.sqrt(int(seeds[1]))
    return _of_members(cell, cells, _of_seeds)


def _of_problems(cell: PrintedCell, cells: Sequence[PrintedCell]) -> float | None:
    n, share = problems(cell), cell.value / 100
    if cell.unit == "percent" and n and 0 <= share <= 1:
        return 100 * math.sqrt(share * (1 - share) / n)
    return _of_members(cell, cells, _of_problems)


def _of_members(
    cell: PrintedCell,
    cells: Sequence[PrintedCell],
    error: Callable[[PrintedCell, Sequence[PrintedCell]], float | None],
) -> float | None:
    own = [error(member, ()) for member in means.members(cell, cells)] if is_mean(cell) else []
    if len(own) < 2 or None in own:
        return None
    return math.sqrt(sum(each**2 for each in own)) / len(own)


def gains(cells: Sequence[PrintedCell], proposed: frozenset[str]) -> Iterator[AuditFinding]:
    """One finding per table that compares the paper's own method with others: differences and their errors."""
    for table in printed.grouped(cells, lambda c: c.table).values():
        within, beyond, below, unknown, compared = [], [], 0, [], []
        columns = printed.grouped(table, lambda c: (c.setting, c.student, c.teacher, c.benchmark, c.metric))
        for column in columns.values():
            pair = _best(column, proposed)
            if pair is None:
                continue
            compared += pair
            own, other = pair
            difference = own.value - other.value
            if difference <= 0:
                below += 1
                continue
            error = of_difference(own, other, cells)
            words = (
                f"{own.benchmark}, {own.student}: {own.method} {own.text} - {other.method} {other.text} = "
                f"{difference:+.{max(own.decimals, other.decimals)}f}"
            )
            if error is None:
                unknown.append(f"{words}; no standard error can be computed")
            else:
                (within if difference < error[0] else beyond).append(f"{words}; {error[1]}")
        if compared:
            yield _gains(compared, within, beyond, below, unknown)


def _gains(
    compared: Sequence[PrintedCell], within: Sequence[str], beyond: Sequence[str], below: int, unknown: Sequence[str]
) -> AuditFinding:
    total = len(within) + len(beyond) + below + len(unknown)
    parts = [f"{len(within)} of {total} columns print the paper's own method ahead by less than one standard error"]
    parts += [f"{len(beyond)} by more"] if beyond else []
    parts += [f"{len(unknown)} ahead without a standard error"] if unknown else []
    parts += [f"{below} not ahead"] if below else []
    lines = [*within, *beyond, *unknown] or ["in no column is the difference above 0"]
    return AuditFinding("gain", compared[0].locator, "; ".join(parts), lines, bool(within or unknown), cells=compared)


def _best(column: Sequence[PrintedCell], proposed: frozenset[str]) -> tuple[PrintedCell, PrintedCell] | None:
    """The best of the paper's own methods and the best of the others; None if one side is missing."""
    able = [c for c in column if c.exact and c.unit not in _COSTS]
    own = [c for c in able if canonical("method", c.method) in proposed]
    others = [c for c in able if canonical("method", c.method) not in proposed and not is_reference(c.method)]
    if not own or not others:
        return None
    return max(own, key=lambda c: c.value), max(others, key=lambda c: c.value)


def seeds(cells: Sequence[PrintedCell]) -> Iterator[AuditFinding]:
    """One finding per source: how many cells state seeds, and how many a spread."""
    scores = [cell for cell in cells if cell.unit not in _COSTS]
    for own in printed.grouped(scores, lambda c: c.source).values():
        stated, spread = [c for c in own if c.seeds], [c for c in own if c.spread]
        where = ", ".join(dict.fromkeys(cell.locator for cell in own))
        lines = [f"{len(own)} scores: {len(stated)} with seeds stated, {len(spread)} with a spread"]
        lines += [f"stated: {', '.join(dict.fromkeys(c.seeds for c in stated))}"] if stated else []
        if not stated:
            statement = f"no seeds are stated for {len(own)} scores"
        elif not spread:
            statement = f"seeds are stated for {len(stated)} of {len(own)} scores, a spread for none"
        else:
            statement = f"a spread over seeds is printed for {len(spread)} of {len(own)} scores"
        yield AuditFinding("seeds", where, statement, lines, not spread, cells=own)


def doubts(cells: Sequence[PrintedCell]) -> Iterator[AuditFinding]:
    """Cells that their collector marked: read from one source, suspicious, extrapolated."""
    for words, own in printed.grouped((c for c in cells if c.doubt), lambda c: c.doubt).items():
        where = ", ".join(dict.fromkeys(cell.locator for cell in own))
        shown = ", ".join(f"{c.method} {c.benchmark} {c.text}" for c in own[:3]) + (", …" if len(own) > 3 else "")
        loud = bool(re.search(r"SUSPICIOUS|EXTRAPOLATED|LATER VERSIONS", words))
        yield AuditFinding("doubt", where, f"{len(own)} cells are marked: {words}", [shown], loud, cells=own)
