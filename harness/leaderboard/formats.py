"""Leaderboard sections as text: Markdown, CSV, JSON, LaTeX, HTML. Numbers are formatted here and nowhere else."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import reading
from harness.errors import BadInput, unknown
from harness.leaderboard import grid, sheets
from harness.leaderboard.rows import Row, Section
from harness.leaderboard.sheets import RECONSTRUCTED, Cell, Sheet


def render(sections: Sequence[Section], format: str, extra: Sequence[Sheet] = (), **layout: bool) -> str:
    """The tables as ``md``, ``csv``, ``json``, ``latex`` or ``html`` text without a final line end.

    Prose formats take ``extra`` sheets below, and ``grid=True`` (all tasks on one sheet first), ``tasks=False`` (no
    sheet a task) and ``cards=True`` (the convention card of every row). CSV and JSON hold one row per method and
    task, or with ``tasks=False`` the grid.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    tasks = layout.get("tasks", True)
    if format == "json":
        return json.dumps(row_dicts(sections) if tasks else grid.objects(sections), indent=2, ensure_ascii=False)
    if format == "csv":
        return csv_text(row_dicts(sections)) if tasks else csv_text(*_flat_grid(sections))
    found = [grid_sheet(sections)] if layout.get("grid", False) and sections else []
    for section in sections if tasks or layout.get("cards", False) else []:
        found += [_sheet(section)] if tasks else []
        found += [cards_sheet(section)] if layout.get("cards", False) else []
    return _PROSE[format]([*found, *extra]) or ("No records." if format == "md" else "")


def update_between_markers(path: Path | str, text: str, name: str) -> bool:
    """Replaces what stands between ``<!-- BEGIN name -->`` and ``<!-- END name -->``; says whether it changed.

    Raises BadInput when the file cannot be read or does not hold the two markers, once and in this order.
    """
    path = Path(path)
    begin, end = f"<!-- BEGIN {name} -->", f"<!-- END {name} -->"
    try:
        before = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error})") from None
    if (before.count(begin), before.count(end)) != (1, 1) or before.index(begin) > before.index(end):
        raise BadInput(f"{path}: needs one line {begin} and, below it, one line {end}")
    head, rest = before.split(begin)
    after = f"{head}{begin}\n{text.strip()}\n{end}{rest.split(end)[1]}"
    if after != before:
        path.write_text(after, encoding="utf-8")
    return after != before


def row_dicts(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """One object per row with every field of :class:`Row`, the label, the tie, and its section's words."""
    return [
        dataclasses.asdict(row)
        | {"label": row.label, "tied_with_best": row.tied, "protocol_differs": section.differs}
        | {"view": section.view, "notes": section.notes}
        for section in sections
        for row in section.rows
    ]


# -- cells -----------------------------------------------------------------------------------------------------------

_COLUMNS: dict[str, Callable[[Row], str]] = {
    "score": lambda row: f"{100 * row.score:.1f}",
    "95 % interval": lambda row: f"{100 * row.low:.1f}–{100 * row.high:.1f}",
    "correct/total": lambda row: f"{row.correct:.10g}/{row.total}",
    "seeds": lambda row: str(len(row.seeds)),
    "gain over sft": lambda row: "" if row.gain_over_sft is None else f"{100 * row.gain_over_sft:+.1f}",
    "recovery": lambda row: "" if row.recovery is None else f"{100 * row.recovery:.0f} %",
    "teacher tokens": lambda row: _amount(row.teacher_tokens),
    "generated tokens": lambda row: _amount(row.generated_tokens),
    "student tokens": lambda row: _amount(row.student_tokens),
    "seconds": lambda row: f"{row.seconds:.0f}",
    "peak memory": lambda row: f"{_amount(row.peak_memory_bytes)}B",
    "errors": lambda row: str(row.errors),
    "truncated": lambda row: str(row.truncated),
}
_ONLY_IF_ANY = {"errors": "errors", "truncated": "truncated", "gain over sft": "gain_over_sft", "recovery": "recovery"}


def _amount(value: float) -> str:
    """A count in at most four characters and a prefix: 950, 12.3 k, 4.56 M."""
    for size, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {prefix}"
    return f"{value:.3g}"


def _columns(section: Section) -> list[str]:
    """The columns in which some row of the section has something to say."""

    def speaks(name: str) -> bool:
        field = _ONLY_IF_ANY.get(name)
        return field is None or any(getattr(row, field) not in (None, 0) for row in section.rows)

    return [name for name in _COLUMNS if speaks(name)]


def _subtitle(section: Section) -> str:
    return f"{section.metric}, {section.problems} problems, protocol {section.protocol[:12]}"


def _sheet(section: Section) -> Sheet:
    """Each row as cells; the score has its rank and the mark of a tie."""
    rows = []
    for row in section.rows:
        cells = [Cell(row.label + (RECONSTRUCTED if row.reconstruction else ""))]
        for name in _columns(section):
            text = _COLUMNS[name](row)
            cells.append(Cell(text, row.rank, row.tied) if name == "score" else Cell(text))
        rows.append(cells)
    return Sheet(section.title, _subtitle(section), ["method", *_columns(section)], rows, section.notes)


def grid_sheet(sections: Sequence[Section]) -> Sheet:
    """Rows by method, columns by task; an empty cell was not measured."""
    (sections, left_out), rows = grid.main(sections), []
    for line in grid.lines(sections):
        cells = [Cell(line.name)]
        for section in sections:
            row = line.cells.get(section.title)
            text = f"{100 * row.score:.1f} ±{grid.half_width(row):.1f}" if row else ""
            cells.append(Cell(text, row.rank, row.tied) if row else Cell(""))
        rows.append(cells)
    notes = list(dict.fromkeys([*(note for section in sections for note in section.notes), *left_out]))
    metrics = ", ".join(f"{section.title}: {section.metric}, {section.problems} problems" for section in sections)
    subtitle = f"percent ± half of the 95 % interval, seeds averaged; {metrics}"
    return Sheet("All tasks", subtitle, ["method", *(section.title for section in sections)], rows, notes)


def cards_sheet(section: Section) -> Sheet:
    """The convention card of every row: rows are what two scores must share, columns the methods."""
    cards = [(row.label + (RECONSTRUCTED if row.reconstruction else ""), row.convention) for row in section.rows]
    keys = dict.fromkeys(key for _, card in cards for key in card)
    rows = [sheets.plain(key, *(str(card.get(key, "")) for _, card in cards)) for key in keys]
    return Sheet(f"Convention cards: {section.title}", "", ["", *(name for name, _ in cards)], rows, words=True)


# -- data ------------------------------------------------------------------------------------------------------------

_BESIDE = ["label", "tied_with_best", "protocol_differs", "view", "notes"]


def names() -> list[str]:
    """The keys of a row as data, in order."""
    return [field.name for field in dataclasses.fields(Row)] + _BESIDE


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Rows as CSV with a header; lists are joined, objects are JSON."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns or names(), lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _csv_cell(value) for key, value in row.items()})
    return text.getvalue().rstrip("\n")


def _csv_cell(value: Any) -> Any:
    if isinstance(value, list | tuple):
        value = "; ".join(map(str, value))
    value = json.dumps(value, sort_keys=True) if isinstance(value, dict) else value
    if not isinstance(value, str):
        return value  # a negative number stays a number
    # A spreadsheet runs a cell that begins like a formula; the apostrophe has it read as text.
    return reading.printable(f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value)


def _flat_grid(sections: Sequence[Section]) -> tuple[list[dict[str, Any]], list[str]]:
    columns = ["method", "kind", "reference", "reconstruction"]
    columns += [f"{section.title}{suffix}" for section in grid.main(sections)[0] for suffix in ("", " ±")]
    rows = []
    for line in grid.objects(sections):
        row = {name: line[name] for name in columns[:4]}
        for title, cell in line["tasks"].items():
            row |= {title: cell["score"], f"{title} ±": cell["half_width"]}
        rows.append(row)
    return rows, columns


_PROSE = {"md": sheets.markdown, "latex": sheets.latex, "html": sheets.html}
FORMATS = (*_PROSE, "csv", "json")
