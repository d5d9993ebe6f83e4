"""Leaderboard sections as text: Markdown, CSV, JSON, LaTeX, HTML."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from harness import durable, safe_read
from harness.errors import BadInput, RunFailed, unknown
from harness.leaderboard import latex_tables, text_tables
from harness.leaderboard.inference import LEVEL
from harness.leaderboard.rows import LeaderboardRow, Section, labels_of
from harness.leaderboard.text_tables import MISSING, RECONSTRUCTED, Table, TableCell, terminal


def render(
    sections: Sequence[Section],
    format: str,
    extra: Sequence[Table] = (),
    *,
    columns: Sequence[str] = (),
    width: int = 0,
    wording: latex_tables.Wording | None = None,
    **layout: bool,
) -> str:
    """Renders tables as ``md``, ``csv``, ``json``, ``latex``, ``html`` or ``terminal`` text, without a final line end.

    ``columns`` chooses the columns of a task's table (default: all that are not empty); ``width`` is the width of the
    ``terminal``, ``wording`` the user's text in a ``latex`` table. The formats for people append the tables
    ``extra`` and take ``grid=True`` (begin with one table of all tasks), ``tasks=False`` (no table per task) and
    ``cards=True`` (the convention card of every row). CSV and JSON hold one row per method and task, or the grid with
    ``tasks=False``.
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    tasks = layout.get("tasks", True)
    if format == "json":
        return json.dumps(row_dicts(sections) if tasks else grid_objects(sections), indent=2, ensure_ascii=False)
    if format == "csv":
        return csv_text(row_dicts(sections)) if tasks else csv_text(*_flat_grid(sections))
    tables = grid_tables(sections) if layout.get("grid", False) and sections else []
    for section in sections if tasks or layout.get("cards", False) else []:
        tables += [_section_table(section, columns)] if tasks else []
        tables += [cards_table(section)] if layout.get("cards", False) else []
    if format == "terminal":
        return terminal([*tables, *extra], width) or "No records."
    if format == "latex":
        return latex_tables.latex([*tables, *extra], wording, bool(columns))
    return _PROSE[format]([*tables, *extra]) or ("No records." if format == "md" else "")


def update_between_markers(path: Path | str, text: str, name: str) -> bool:
    """Replaces the text between ``<!-- BEGIN name -->`` and ``<!-- END name -->``; returns whether it changed.

    Raises BadInput when the file cannot be read or does not hold the two markers, once and in this order; RunFailed
    when it cannot be written.
    """
    path = Path(path)
    begin, end = f"<!-- BEGIN {name} -->", f"<!-- END {name} -->"
    try:
        before = path.read_bytes().decode("utf-8")  # keep the line ends
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({error})") from None
    if (before.count(begin), before.count(end)) != (1, 1) or before.index(begin) > before.index(end):
        raise BadInput(f"{path}: needs one line {begin} and, below it, one line {end}")
    head, rest = before.split(begin)
    after = f"{head}{begin}\n{text.strip()}\n{end}{rest.split(end)[1]}"
    if after != before:
        try:
            durable.write(path, after.encode("utf-8", "backslashreplace"))
        except OSError as error:
            raise RunFailed(f"{path} could not be written ({error.strerror}); it is unchanged") from None
    return after != before


def row_dicts(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """One object per row: the fields of :class:`LeaderboardRow`, unit, direction, label, tie, and its section's."""
    return [
        {field.name: getattr(row, field.name) for field in dataclasses.fields(row) if field.name != "scale"}
        | {"unit": row.scale.unit, "higher_is_better": row.scale.higher_is_better}
        | {"label": row.label, "tied_with_best": row.tied, "protocol_differs": section.differs}
        | {"view": section.view, "notes": section.notes}
        for section in sections
        for row in section.rows
    ]


# -- cells -----------------------------------------------------------------------------------------------------------

_COLUMNS: dict[str, Callable[[LeaderboardRow], str]] = {
    "score": lambda row: row.scale.text(row.score),
    "95 % interval": lambda row: f"{row.scale.text(row.low)}–{row.scale.text(row.high)}",
    "correct/total": lambda row: f"{row.correct:.10g}/{row.total}",
    "completions": lambda row: str(row.total),
    "seeds": lambda row: str(len(row.seeds)),
    "over baseline": lambda row: _or_noise(row.scale.signed, row.over_baseline, row.over_baseline_p),
    "recovery": lambda row: _or_noise(text_tables.percent, row.recovery, row.recovery_p),
    "teacher tokens": lambda row: _spent(row, row.teacher_tokens),
    "generated tokens": lambda row: _spent(row, row.generated_tokens),
    "student tokens": lambda row: _spent(row, row.student_tokens),
    "seconds": lambda row: "" if row.reference else f"{row.seconds:.0f}",
    "peak memory": lambda row: text_tables.amount(row.peak_memory_bytes, "B") if row.peak_memory_bytes else "",
    "errors": lambda row: str(row.errors),
    "truncated": lambda row: str(row.truncated),
}
COLUMNS = tuple(_COLUMNS)
# Columns that a narrow terminal leaves out, the least important first.
_LEAST = (
    "peak memory", "seconds", "student tokens", "generated tokens", "teacher tokens", "truncated", "correct/total",
    "errors", "recovery", "seeds", "over baseline",
)  # fmt: skip
_TERMS = {  # columns that a terminal explains below the table
    "over baseline": "difference from that row of the same recipe",
    "recovery": "share of the way from the untrained student to the teacher",
}
_ONLY_IF_ANY = {"errors": "errors", "truncated": "truncated", "over baseline": "over_baseline", "recovery": "recovery"}


def _or_noise(in_words: Callable[[float], str], value: float | None, p: float | None) -> str:
    """A difference, in parentheses where it is not significant; empty where there is none."""
    shown = "" if value is None else in_words(value)
    return shown if not shown or (p is not None and p < LEVEL) else f"({shown})"


def _noise(section: Section) -> list[str]:
    """Explains the parentheses, if a row of the section has some."""
    tested = [p for row in section.rows for p in (row.over_baseline_p, row.recovery_p) if p is not None and p >= LEVEL]
    return [f"in parentheses: not distinguishable from zero (p ≥ {LEVEL}, Holm-adjusted)"] if tested else []


def _spent(row: LeaderboardRow, value: float) -> str:
    """A cost of training; empty for a model that was never trained."""
    return "" if row.reference else text_tables.amount(value)


def _columns(section: Section, requested: Sequence[str] = ()) -> list[str]:
    """The requested columns, or those that are not empty in every row of the section."""
    if requested:
        return list(requested)

    def speaks(name: str) -> bool:
        # A sum of scores counts right answers on some scales only.
        if name in ("correct/total", "completions"):
            return section.scale.counts == (name == "correct/total")
        field = _ONLY_IF_ANY.get(name)
        return field is None or any(getattr(row, field) not in (None, 0) for row in section.rows)

    return [name for name in _COLUMNS if speaks(name)]


def _headings(section: Section, columns: Sequence[str]) -> list[str]:
    """The headings; that of a difference names the baseline if all rows have the same."""
    marks = {row.baseline for row in section.rows if row.baseline}
    own = {"over baseline": f"over {next(iter(marks))}"} if len(marks) == 1 else {}
    return [own.get(name, name) for name in columns]


def _subtitle(section: Section) -> str:
    scale = "" if section.scale.unit == "%" else section.scale.caption
    return ", ".join(
        filter(None, (section.metric, scale, f"{section.problems} problems", f"protocol {section.protocol[:12]}"))
    )


def _section_table(section: Section, requested: Sequence[str] = ()) -> Table:
    """The table of a section; the score cell has its rank and the mark of a tie."""
    rows, columns = [], _columns(section, requested)
    for row in section.rows:
        cells = [TableCell(row.label + (RECONSTRUCTED if row.reconstruction else ""))]
        for name in columns:
            text = _COLUMNS[name](row)
            cells.append(TableCell(text, row.rank, row.tied) if name == "score" else TableCell(text))
        rows.append(cells)
    notes = [*section.notes, *_noise(section)]
    least = [1 + columns.index(name) for name in _LEAST if name in columns]
    header = ["method", *_headings(section, columns)]
    terms = {i: f"{header[i]}: {_TERMS[name]}" for i, name in enumerate(columns, 1) if name in _TERMS}
    return Table(section.title, _subtitle(section), header, rows, notes, least=least, terms=terms)


def grid_tables(sections: Sequence[Section]) -> list[Table]:
    """The table of all tasks; at equal steps, one table for each number of steps that several rows have."""
    shown, by_view = main_lines(sections)[0], defaultdict(list)
    for section in shown:
        by_view[section.view].append(section)
    names, trained = labels_of(shown), lambda its: [line for line in grid_lines(its) if not line.reference]
    several = sorted((its for its in by_view.values() if len(trained(its)) > 1), key=lambda its: its[0].rows[0].steps)
    if len({section.task for section in shown}) == len(shown) or not several:
        return [grid_table(sections)]
    found = [replace(grid_table(its), title=its[0].view.capitalize()) for its in several]
    rows = [row for section in shown if by_view[section.view] not in several for row in section.rows]
    if alone := dict.fromkeys(names[row.key] for row in rows if not row.reference):
        found[-1].notes.append(f"no other row has as many steps: {', '.join(alone)}")
    return found


def grid_table(sections: Sequence[Section]) -> Table:
    """One table of all tasks: rows by method, columns by task; missing cells are marked."""
    (sections, left_out), rows = main_lines(sections), []
    lines = grid_lines(sections)
    for line in lines:
        own = (line.cells.get(section.title) for section in sections)
        cells = [r and TableCell(text_tables.spread(r.score, r.low, r.high, r.scale), r.rank, r.tied) for r in own]
        rows.append([TableCell(line.name), *(cell or TableCell(MISSING) for cell in cells)])
    # The subtitle says once what all columns share, and beside its metric what one column has of its own.
    views, shown = {section.view for section in sections}, {section.named for section in sections}
    heads = {each.title: each.named if len(shown) == len(sections) else each.title for each in sections}
    notes = [*(note for section in sections for note in section.notes), *missing_notes(lines, heads), *left_out]
    percent = all(section.scale.unit == "%" for section in sections)
    facts = [
        f"{heads[each.title]}: {each.metric}{'' if percent else f' ({each.scale.caption})'}, {each.problems} problems"
        + (f", {each.view}" if len(views) > 1 and heads[each.title] != each.title else "")
        for each in sections
    ]
    whole = "± half of the 95 % interval (its ends where half would leave the range), seeds averaged, by mean rank"
    parts = [*(views if len(views) == 1 else ()), f"{'percent' if percent else 'score'} {whole}"]
    subtitle = "; ".join(filter(None, [*parts, *([", ".join(facts)] if len(views) == 1 else facts)]))
    return Table("All tasks", subtitle, ["method", *heads.values()], rows, list(dict.fromkeys(notes)))


def cards_table(section: Section) -> Table:
    """The convention cards of a section: one row per convention, one column per method."""
    cards = [(row.label + (RECONSTRUCTED if row.reconstruction else ""), row.convention) for row in section.rows]
    keys = dict.fromkeys(key for _, card in cards for key in card)
    rows = [text_tables.plain(key, *(str(card.get(key, "")) for _, card in cards)) for key in keys]
    return Table(f"Convention cards: {section.title}", "", ["", *(name for name, _ in cards)], rows, words=True)


# -- data ------------------------------------------------------------------------------------------------------------

_BESIDE = ["unit", "higher_is_better", "label", "tied_with_best", "protocol_differs", "view", "notes"]


def names() -> list[str]:
    """The keys of a row as data, in order."""
    return [field.name for field in dataclasses.fields(LeaderboardRow) if field.name != "scale"] + _BESIDE


def csv_text(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None) -> str:
    """Rows as CSV with a header; lists are joined, objects are JSON."""
    text = io.StringIO()
    fields = columns or names()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(_csv_cell, fields))
    for row in rows:
        writer.writerow(_csv_cell(row.get(key, "")) for key in fields)
    return text.getvalue().rstrip("\n")


def _csv_cell(value: Any) -> Any:
    if isinstance(value, list | tuple):
        value = "; ".join(map(str, value))
    value = json.dumps(value, sort_keys=True) if isinstance(value, dict) else value
    if not isinstance(value, str):
        return value  # a negative number stays a number
    # A spreadsheet executes a cell that begins like a formula; the apostrophe makes it text.
    return safe_read.printable(f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value)


def _flat_grid(sections: Sequence[Section]) -> tuple[list[dict[str, Any]], list[str]]:
    columns = ["method", "kind", "reference", "reconstruction", "mean_rank", "missing"]
    facts = len(columns)
    columns += [f"{section.title}{suffix}" for section in main_lines(sections)[0] for suffix in ("", " ±")]
    rows = []
    for line in grid_objects(sections):
        row = {name: line[name] for name in columns[:facts]}
        for title, cell in line["tasks"].items():
            row |= {title: cell["score"], f"{title} ±": cell["half_width"]}
        rows.append(row)
    return rows, columns


_PROSE = {"md": text_tables.markdown, "html": text_tables.html}
FORMATS = (*_PROSE, "latex", "csv", "json", "terminal")


# One table of all tasks: rows by method, columns by task, each score with the half width of its interval.
#
# Every column keeps its own protocol, best, second and ties. Scores are not averaged over tasks; lines are sorted by
# mean rank.


@dataclass(frozen=True)
class GridLine:
    """One method under one training recipe; ``cells`` by the title of the section, ``missing`` those without a cell.

    ``mean_rank`` is the mean over all tasks; a line without a task has none, for means over other tasks do not compare.
    """

    label: str
    reference: bool
    reconstruction: bool
    cells: Mapping[str, LeaderboardRow]
    missing: tuple[str, ...] = ()
    mean_rank: float | None = None

    @property
    def name(self) -> str:
        return self.label + (RECONSTRUCTED if self.reconstruction else "")


def grid_lines(sections: Sequence[Section]) -> list[GridLine]:
    """Joins the rows of all sections that have the same method, settings, models and recipe.

    Sorted by mean rank; then lines with missing tasks, by label; then references.
    """
    shown = main_lines(sections)[0]
    names = labels_of(shown)
    by_key: dict[Any, dict[str, LeaderboardRow]] = {}
    for section in shown:
        for row in section.rows:
            by_key.setdefault(row.key, {})[section.title] = row
    lines = []
    for key, cells in by_key.items():
        row = next(iter(cells.values()))
        missing = tuple(section.title for section in shown if section.title not in cells)
        lines.append(GridLine(names[key], row.reference, row.reconstruction, cells, missing))
    ranked = [line for line in lines if not line.reference and not line.missing]
    rest = sorted((line for line in lines if line.reference or line.missing), key=lambda it: (it.reference, it.label))
    return [*sorted(_with_mean_ranks(ranked), key=lambda it: (it.mean_rank, it.label)), *rest]


def _with_mean_ranks(complete: Sequence[GridLine]) -> list[GridLine]:
    """The lines with their mean ranks; equal scores share a rank, as in a section."""
    ranks: list[list[int]] = [[] for _ in complete]
    for title in complete[0].cells if complete else ():
        scale = complete[0].cells[title].scale
        scores = [line.cells[title].score for line in complete]
        for place, score in zip(ranks, scores, strict=True):
            place.append(1 + sum(scale.gain(other, score) > 0 for other in scores))
    return [replace(line, mean_rank=fmean(place)) for line, place in zip(complete, ranks, strict=True)]


def missing_notes(lines: Sequence[GridLine], heads: Mapping[str, str]) -> list[str]:
    """A note on the lines without a mean rank and the cells that they lack; ``heads`` are the headings by title."""
    unranked = (line for line in lines if line.missing and not line.reference)
    lacking = [f"{line.label}: {', '.join(heads[title] for title in line.missing)}" for line in unranked]
    return [f"{MISSING} not measured, so not ranked over all tasks: {'; '.join(lacking)}"] if lacking else []


def main_lines(sections: Sequence[Section]) -> tuple[list[Section], list[str]]:
    """The sections of each task's main protocol, and a note on every other: columns never mix protocols.

    The main protocol is the one with the most records, the first of several.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for section in sections:
        counts[section.task][section.protocol] += sum(len(row.run_ids) for row in section.rows)
    chosen = {task: by_protocol.most_common(1)[0][0] for task, by_protocol in counts.items()}
    lines = []
    for section in sections:
        if section.protocol != chosen[section.task]:
            ids = [run_id for row in section.rows for run_id in row.run_ids]
            named = ", ".join(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
            lines.append(
                f"{section.task}: measured under another protocol than most records "
                f"({section.differs or section.protocol[:12]}), so left out of their table: {named}"
            )
    return [section for section in sections if section.protocol == chosen[section.task]], lines


def half_width(row: LeaderboardRow) -> float:
    """Half of the 95 % interval, as printed."""
    return row.scale.shown(row.high - row.low) / 2


def grid_objects(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """One object per method with one per task: score, half_width, low, high as printed; rank, tied_with_best, seeds."""
    return [
        {
            "method": line.label,
            "kind": next(iter(line.cells.values())).kind,
            "reference": line.reference,
            "reconstruction": line.reconstruction,
            "mean_rank": line.mean_rank,
            "missing": list(line.missing),
            "tasks": {
                title: {
                    "score": row.scale.shown(row.score),
                    "half_width": half_width(row),
                    "low": row.scale.shown(row.low),
                    "high": row.scale.shown(row.high),
                    "rank": row.rank,
                    "tied_with_best": row.tied,
                    "seeds": len(row.seeds),
                }
                for title, row in line.cells.items()
            },
        }
        for line in grid_lines(sections)
    ]
