"""Values of one cell in several tables, versions or papers; orders that differ; column heads that look swapped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, permutations

from harness.papers.audit.finding import AuditFinding, bare, canonical, facts, is_reference
from harness.papers.audit.spread import of_difference
from harness.records import printed
from harness.records.printed import PrintedCell

Proposed = Mapping[tuple[str, str], frozenset[str]]  # (paper, source) to the canonical names of its own methods


def check(cells: Sequence[PrintedCell]) -> Iterator[AuditFinding]:
    """Findings within one paper's file."""
    yield from _differ(cells, lambda cell: (cell.paper, *cell.table))
    for table in printed.grouped(cells, lambda c: c.table).values():
        yield from _heads(table)


def across(cells: Sequence[PrintedCell], proposed: Proposed) -> Iterator[AuditFinding]:
    """Findings between the files of several papers: values of one cell, then orders of two methods."""
    yield from _differ(cells, lambda cell: (cell.paper,), proposed)
    yield from _orders(cells, proposed)


# -- values ----------------------------------------------------------------------------------------------------------


def metric(cell: PrintedCell) -> str:
    """The metric without remarks, such as "win rate", "avg@16" or "pass@1": equal for cells that measure one thing."""
    name = cell.metric.casefold().replace("_", " ")
    return "win rate" if name.startswith("win rate") else re.split(r"[ ,(]", name, maxsplit=1)[0]


def identity(cell: PrintedCell) -> tuple[str, ...]:
    """A key equal for cells that print one quantity: method, pair, benchmark, metric and unit by canonical name."""
    pair = (canonical("model", cell.student), canonical("model", cell.teacher))
    names = (canonical("method", cell.method), *pair, canonical("benchmark", cell.benchmark))
    return (*names, metric(cell), cell.unit)


def _differ(cells: Sequence[PrintedCell], place, proposed: Proposed | None = None) -> Iterator[AuditFinding]:
    """One finding for every quantity with different values in different places."""
    able = [c for c in cells if "not stated" not in (c.student, c.teacher) and "not read" not in c.student]
    same = 0
    for group in printed.grouped(able, identity).values():
        places = printed.grouped(group, place)
        if len(places) < 2:
            continue
        odd = [(a, b) for a, b in _between(list(places.values())) if not _agree(a, b)]
        if not odd:
            same += 1
            continue
        first = group[0]
        values = "; ".join(f"{_place(cell, proposed is not None)} {cell.text}" for cell in group)
        pair = f"{first.student} <- {first.teacher}" if first.teacher else first.student
        statement = (
            f"{first.method}, {pair}, {first.benchmark} ({metric(first)}) is printed with several values: {values}"
        )
        lines = [f"{b.text} - {a.text} = {b.value - a.value:+.{max(a.decimals, b.decimals)}f}" + _in_errors(a, b)
                 for a, b in odd]  # fmt: skip
        if proposed is not None:
            lines += _gains_beside(group, cells, proposed)
        where = " and ".join(dict.fromkeys(_place(c, proposed is not None) for c in group))
        yield AuditFinding("differ", where, statement, lines, True, cells=group)
    if same:
        statement = f"{same} cells are printed in several places with the same value"
        yield AuditFinding(
            "differ", "all tables", statement, ["equal within the rounding of the printed places"], False
        )


def _between(groups: Sequence[Sequence[PrintedCell]]) -> Iterator[tuple[PrintedCell, PrintedCell]]:
    """Pairs of cells from different places, with equal settings if both state one."""
    for one, other in combinations(groups, 2):
        yield from ((a, b) for a in one for b in other if not a.setting or not b.setting or a.setting == b.setting)


def _agree(a: PrintedCell, b: PrintedCell) -> bool:
    return abs(a.value - b.value) <= (a.step + b.step) / 2 + 1e-9 if a.step != b.step else a.text == b.text


def _in_errors(a: PrintedCell, b: PrintedCell) -> str:
    error = of_difference(a, b)
    return f"; {error[1]}" if error else "; no standard error can be computed"


def _place(cell: PrintedCell, with_paper: bool) -> str:
    setting = f" ({cell.setting})" if cell.setting else ""
    version = f", version {cell.version}" if cell.version and not with_paper else ""
    return (f"{cell.paper}: " if with_paper else "") + cell.locator + setting + version


def _gains_beside(group: Sequence[PrintedCell], cells: Sequence[PrintedCell], proposed: Proposed) -> Iterator[str]:
    """The gains that the same columns print for their own methods."""
    for cell in group:
        own = proposed.get((cell.paper, cell.source), frozenset())
        column = [c for c in cells if c.paper == cell.paper and (*c.table, c.setting) == (*cell.table, cell.setting)
                  and (c.student, c.teacher, c.benchmark) == (cell.student, cell.teacher, cell.benchmark)]  # fmt: skip
        ours = [c for c in column if canonical("method", c.method) in own]
        others = [c for c in column if canonical("method", c.method) not in own and not is_reference(c.method)]
        if ours and others:
            best, other = max(ours, key=lambda c: c.value), max(others, key=lambda c: c.value)
            gain = best.value - other.value
            yield (
                f"{_place(cell, True)} prints {best.method} {best.text} - {other.method} {other.text} = "
                f"{gain:+.{best.decimals}f} as the gain over the best other"
            )


# -- orders ----------------------------------------------------------------------------------------------------------


def _orders(cells: Sequence[PrintedCell], proposed: Proposed) -> Iterator[AuditFinding]:
    """Methods that are above another in their own paper and below it in someone else's run on the same student."""
    tables = printed.grouped(cells, lambda c: (c.paper, c.source, c.locator, canonical("model", c.student)))
    columns = {key: _signs(table) for key, table in tables.items()}
    for (home, signs), (away, others) in permutations(columns.items(), 2):
        own = proposed.get(home[:2], frozenset())
        if home[:2] == away[:2] or home[3] != away[3]:
            continue
        for (left, right), rows in signs.items():
            beside = others.get((left, right), [])
            if left not in own or not beside or right in own:
                continue
            if all(a.value > b.value for a, b in rows) and all(a.value < b.value for a, b in beside):
                yield _order(rows, beside)


def _signs(table: Sequence[PrintedCell]) -> dict[tuple[str, str], list[tuple[PrintedCell, PrintedCell]]]:
    """Pairs of cells of two methods in the same column and setting, by the methods' names."""
    pairs: dict[tuple[str, str], list[tuple[PrintedCell, PrintedCell]]] = {}
    columns = printed.grouped(table, lambda c: (c.setting, c.teacher, c.benchmark, c.metric, c.unit))
    for column in columns.values():
        able = [c for c in column if c.exact and c.unit not in ("FLOPs", "GPU hours")]
        for a, b in permutations(able, 2):
            names = (canonical("method", a.method), canonical("method", b.method))
            if names[0] != names[1] and not is_reference(a.method) and not is_reference(b.method):
                pairs.setdefault(names, []).append((a, b))
    return pairs


def _order(
    rows: Sequence[tuple[PrintedCell, PrintedCell]], beside: Sequence[tuple[PrintedCell, PrintedCell]]
) -> AuditFinding:
    (a, b), (c, _) = rows[0], beside[0]
    statement = f"{a.method} is above {b.method} on {a.student} in {_place(a, True)} and below it in {_place(c, True)}"
    lines = [
        f"{_place(one, True)}, {one.benchmark} ({one.metric}): {one.text} {sign} {other.text}, "
        f"difference {one.value - other.value:+.{one.decimals}f}"
        for sign, pairs in ((">", rows), ("<", beside))
        for one, other in pairs
    ]
    cells = [cell for pair in (*rows, *beside) for cell in pair]
    return AuditFinding("order", f"{a.paper} and {c.paper}", statement, lines, True, cells=cells)


# -- heads -----------------------------------------------------------------------------------------------------------


def _heads(table: Sequence[PrintedCell]) -> Iterator[AuditFinding]:
    """Two untouched models whose scores are nearer to each other's measured level than to their own."""
    rows = [
        (level, {c.benchmark: c for c in own if c.benchmark in level["scores"] and c.unit == "percent"})
        for own in printed.grouped(
            (c for c in table if canonical("method", c.method) == "teacher"), lambda c: c.teacher
        ).values()
        for level in facts()["level"]
        if bare(level["model"]) == bare(own[0].teacher)
    ]
    for (one, ours), (other, theirs) in combinations([row for row in rows if row[1]], 2):
        kept, swapped, lines = 0.0, 0.0, []
        for cells, own, wrong in ((ours, one, other), (theirs, other, one)):
            for name, cell in cells.items():
                near, far = (abs(cell.value - level["scores"][name]) for level in (own, wrong))
                kept, swapped = kept + near, swapped + far
                lines.append(
                    f"{name} {cell.text} under {own['model']}: {own['model']} has {own['scores'][name]}, off by "
                    f"{near:.2f}; {wrong['model']} has {wrong['scores'][name]}, off by {far:.2f}"
                )
        lines.append(f"distances as printed {kept:.2f}, with the heads exchanged {swapped:.2f} ({one['source']})")
        cells = [*ours.values(), *theirs.values()]
        if swapped < kept / 2:
            statement = f"the heads of {one['model']} and {other['model']} look exchanged"
            yield AuditFinding("heads", cells[0].locator, statement, lines, True, cells=cells)
        else:
            statement = f"the heads of {one['model']} and {other['model']} agree with measured levels"
            yield AuditFinding("heads", cells[0].locator, statement, lines, False, cells=cells)
