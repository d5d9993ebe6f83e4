"""A paper's tables as printed: methods by benchmarks, one table per locator and pair of models.

Facts common to all cells of a table are listed once below it; facts of some cells are lettered notes. Doubts about
a cell (one source, a suspicious value) are always shown.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import string
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import unknown
from harness.leaderboard import latex_tables, text_tables
from harness.leaderboard.text_tables import Table
from harness.papers import side_by_side
from harness.records import printed
from harness.records.printed import PrintedCell
from harness.records.reported import Paper

FORMATS = ("text", "md", "csv", "latex", "json")
WIDTH = 80
_HEAD, _NAME = 13, 26  # widths at which heads and names of rows are broken


@dataclass(frozen=True)
class PrintedTable:
    """``rows[i]`` has one text per column; ``notes`` explain columns, then shared facts, then the letters."""

    title: str
    columns: Sequence[str]
    names: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]


def render(paper: Paper, format: str) -> str:
    """The whole paper: title, sources with licences, every table. Raises BadInput for an unknown format."""
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    cells = printed.of(paper)
    if format == "json":
        return json.dumps(paper, indent=2, ensure_ascii=False)
    if format == "csv":
        return _csv(cells)
    printed_tables = list(tables(cells))
    if format == "text":
        stated = [side_by_side.facts(paper)] if paper["cells"] else []
        return "\n\n".join(["\n".join(_head(paper)), *map(_text, printed_tables), *stated])
    as_tables = [Table(t.title, "", ["method", *t.columns], _rows_of(t), t.notes) for t in printed_tables]
    if format == "latex":
        lines = [f"% {line}" for line in _facts(paper)]
        return "\n".join(lines) + "\n\n" + latex_tables.latex(as_tables)
    lead = [f"# {paper['title']}", "*Reported, not measured here.*", "\n".join(f"- {line}" for line in _facts(paper))]
    return "\n\n".join([*lead, text_tables.markdown(as_tables)])


def listing(papers: Sequence[Paper]) -> list[dict[str, Any]]:
    """The entry of each paper in ``harness list papers``."""
    rows = []
    for paper in papers:
        cells = printed.of(paper)
        own = {cell.method for cell in cells}
        licences = {source["licence"] for source in paper.get("sources", {}).values()} or {"not stated"}
        rows.append(
            {
                "name": paper["id"],
                "summary": paper["title"],
                "cells": len(cells),
                "tables": len({cell.table for cell in cells}),
                "methods": len(own),
                "doubtful": sum(bool(cell.doubt) for cell in cells),
                "year": paper["year"],
                "url": paper["url"],
                "licences": sorted(licences),
            }
        )
    return rows


def listing_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The list for people: two lines per paper."""
    width = max((len(row["name"]) for row in rows), default=0)
    lines = []
    for row in rows:
        lines += textwrap.wrap(row["summary"], WIDTH, initial_indent=f"{row['name']:<{width}}  ",
                               subsequent_indent=" " * (width + 2))  # fmt: skip
        tables, methods = (f"{row[key]} {key if row[key] != 1 else key[:-1]}" for key in ("tables", "methods"))
        doubtful = f", {row['doubtful']} marked doubtful" if row["doubtful"] else ""
        lines.append(" " * (width + 2) + f"{row['cells']} cells of {methods} in {tables}{doubtful}")
        lines += [" " * (width + 2) + row["url"]] if row["url"] else []
    return "\n".join(lines)


def tables(cells: Sequence[PrintedCell]) -> Iterator[PrintedTable]:
    """The cells by table and pair, in the order of the file."""
    for group in printed.grouped(cells, lambda c: (*c.table, c.student, c.teacher)).values():
        yield _table(group)


def _table(cells: Sequence[PrintedCell]) -> PrintedTable:
    first = cells[0]
    heads = _column_heads(cells)
    names = list(dict.fromkeys(cell.method for cell in cells))
    # Facts of a cell that not all cells of the table share get a letter.
    remarks = {cell.key: [text for text in (f"status: {cell.status}", cell.note) if text] for cell in cells}
    shared = [r for r in remarks[first.key] if all(r in other for other in remarks.values())]
    rest = [r for own in remarks.values() for r in own if r not in shared]
    letters = dict(zip(dict.fromkeys(rest), _letters(), strict=False))
    texts: dict[tuple[str, str], str] = {}
    for cell in cells:
        marks = ",".join(letters[r] for r in remarks[cell.key] if r in letters)
        spread = f" ±{cell.spread}" if cell.spread else ""
        texts[cell.method, heads[cell.key]] = cell.text + spread + (f" [{marks}]" if marks else "")
    columns = list(dict.fromkeys(heads.values()))
    rows = [[texts.get((name, column), "") for column in columns] for name in names]
    pair = f"{first.student} <- {first.teacher}" if first.teacher else first.student
    notes = [*_column_notes(cells, heads), *shared, *(f"[{letter}] {text}" for text, letter in letters.items())]
    return PrintedTable(f"{first.locator}: {pair}", columns, names, rows, notes)


def _column_heads(cells: Sequence[PrintedCell]) -> dict[tuple[str, ...], str]:
    """The head of each cell's column: its benchmark, with metric or setting if only these distinguish columns."""
    metrics = printed.grouped(cells, lambda c: c.benchmark)
    heads = {}
    for cell in cells:
        beside = metrics[cell.benchmark]
        extra = [cell.metric] if len({c.metric for c in beside}) > 1 else []
        extra += [cell.setting] if cell.setting and len({c.setting for c in beside}) > 1 else []
        heads[cell.key] = " ".join([cell.benchmark, *(f"({word})" for word in extra)])
    return heads


def _column_notes(cells: Sequence[PrintedCell], heads: Mapping[tuple[str, ...], str]) -> list[str]:
    """Metric, unit, n, samples, judge and seeds of the columns; columns with the same facts share a line."""
    facts: dict[str, list[str]] = {}
    for cell in cells:
        facts.setdefault(_measured(cell), []).append(heads[cell.key])
    if len(facts) == 1:
        return [next(iter(facts))]
    return [f"{', '.join(dict.fromkeys(columns))}: {fact}" for fact, columns in facts.items()]


def _measured(cell: PrintedCell) -> str:
    parts = [cell.metric, "" if cell.unit.startswith(cell.metric) else cell.unit]
    parts += [f"n {cell.n}" if cell.n else "", f"{cell.samples} samples" if (cell.samples or 1) > 1 else ""]
    parts += [f"judge {cell.judge}" if cell.judge else "", f"seeds: {cell.seeds or 'not stated'}"]
    parts += [f"version {cell.version}" if cell.version else ""]
    return "; ".join(filter(None, parts))


def _letters() -> Iterator[str]:
    yield from string.ascii_lowercase
    for first in string.ascii_lowercase:
        yield from (first + second for second in string.ascii_lowercase)


# -- formats ---------------------------------------------------------------------------------------------------------


def _facts(paper: Paper) -> list[str]:
    authors = f"Authors: {', '.join(paper['authors'])}" if paper["authors"] else ""
    year = f"Year: {paper['year']}" if paper["year"] else ""
    return [
        *filter(None, [authors, year, f"Address: {paper['url']}" if paper["url"] else "", paper["about"]]),
        *(f"Source: {line}" for line in printed.sources(paper)),
        *(f"Note: {note}" for note in paper["notes"]),
    ]


def _head(paper: Paper) -> Iterator[str]:
    yield from _wrapped(f"{paper['id']}: {paper['title']} (reported, not measured here)")
    for fact in _facts(paper):
        yield from _wrapped(fact, behind="  ")


def _text(table: PrintedTable) -> str:
    heads = [textwrap.wrap(column, _HEAD) for column in table.columns]
    names = [textwrap.wrap(name, _NAME) for name in table.names]
    widths = [max([*map(len, head), *(len(row[i]) for row in table.rows)]) for i, head in enumerate(heads)]
    left = max(len(line) for name in names for line in name)
    # Columns that do not fit next to each other continue below, under the same names.
    blocks: list[list[int]] = [[]]
    for i, width in enumerate(widths):
        if blocks[-1] and left + sum(widths[j] + 2 for j in blocks[-1]) + width + 2 > WIDTH:
            blocks.append([])
        blocks[-1].append(i)
    lines = _wrapped(table.title, behind="  ")
    for block in blocks:
        depth = max(len(heads[i]) for i in block)
        padded = {i: [""] * (depth - len(heads[i])) + heads[i] for i in block}
        lines += [
            (" " * left + "".join(f"  {padded[i][d]:>{widths[i]}}" for i in block)).rstrip() for d in range(depth)
        ]
        for name, row in zip(names, table.rows, strict=True):
            lines += name[:-1]
            lines.append((f"{name[-1]:<{left}}" + "".join(f"  {row[i]:>{widths[i]}}" for i in block)).rstrip())
    for note in table.notes:
        lines += _wrapped(note, "  ", "    ")
    return "\n".join(lines)


def _wrapped(text: str, first: str = "", behind: str = "") -> list[str]:
    """Prose in lines; hub ids and addresses stay whole, so that they can be copied."""
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=behind, break_long_words=False, break_on_hyphens=False
    )


def _rows_of(table: PrintedTable) -> list[list[text_tables.TableCell]]:
    return [text_tables.plain(name, *row) for name, row in zip(table.names, table.rows, strict=True)]


def _csv(cells: Sequence[PrintedCell]) -> str:
    text = io.StringIO()
    names = [field.name for field in dataclasses.fields(PrintedCell)]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["value" if name == "text" else name for name in names])
    for cell in cells:
        values = (getattr(cell, name) for name in names)
        writer.writerow(["" if value is None else value for value in values])
    return text.getvalue().rstrip("\n")
