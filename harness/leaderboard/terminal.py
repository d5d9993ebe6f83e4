"""Prints tables for a terminal: aligned, coloured, and no wider than the window.

The best of a column is bold and green, the second underlined; references are dim. Columns that do not fit are left out,
the least important first, and named below the table.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from harness.leaderboard.footnotes import DIFFER
from harness.leaderboard.labels import said
from harness.leaderboard.text_tables import TIED, Table, TableCell
from harness.safe_read import Styled, printable

NARROWEST = 24  # characters that the first column keeps before others are left out
LOOKS = {1: "bold green", 2: "underline"}


def terminal(sheets: Sequence[Table], width: int, *, colour: bool = True) -> Styled:
    """The tables as text of at most ``width`` columns; ``colour`` adds the escape sequences of a terminal."""
    stream = io.StringIO()
    console = Console(
        file=stream, width=width, force_terminal=colour, no_color=not colour, highlight=False, legacy_windows=False
    )
    for number, sheet in enumerate(map(_plainly, sheets)):
        if number:
            console.print()
        _print(console, sheet, width)
    return Styled(stream.getvalue().rstrip("\n"))


def _plainly(sheet: Table) -> Table:
    """The sheet with numbers of steps in words, which are shorter: ``kd (340 steps)``."""
    rows = [[replace(row[0], text=said(row[0].text)), *row[1:]] for row in sheet.rows]
    return replace(sheet, rows=rows, notes=[said(note) for note in sheet.notes])


def _print(console: Console, sheet: Table, width: int) -> None:
    console.print(Text(printable(sheet.title), style="bold"))
    if sheet.subtitle:
        console.print(Text(printable(sheet.subtitle), style="dim"))
    blocks, left_out = _fitting(sheet, width)
    for columns in blocks:
        console.print(_block(sheet, columns))
    notes = [f"left out for lack of width: {', '.join(left_out)} (--columns chooses)"] if left_out else []
    for note in [*map(_short, sheet.notes), *notes]:
        console.print(Text(printable(note), style="dim"))


def _short(note: str) -> str:
    """Leaves out a note that would fill a screen: every differing line of the convention cards, which --cards shows."""
    return f"{DIFFER}: --cards shows them" if note.startswith(DIFFER) else note


def _block(sheet: Table, columns: Sequence[int]) -> RichTable:
    table = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column(Text(printable(sheet.header[0])), overflow="fold", min_width=min(NARROWEST, _width(sheet, 0)))
    for column in columns:
        table.add_column(
            Text(printable(sheet.header[column])), justify="left" if sheet.words else "right", overflow="fold"
        )
    for row in sheet.rows:
        table.add_row(*(_cell(row[column]) for column in (0, *columns)))
    return table


def _cell(cell: TableCell) -> Text:
    return Text(printable(cell.text) + (TIED if cell.tied else ""), style=LOOKS.get(cell.rank, ""))


def _fitting(sheet: Table, width: int) -> tuple[list[list[int]], list[str]]:
    """The columns of each block that fit beside the first one, and the headings of those left out.

    A sheet that says which columns may go (``Table.least``) loses them; any other is broken into several blocks.
    """
    room = width - min(_width(sheet, 0), max(NARROWEST, width // 3))
    columns = list(range(1, len(sheet.header)))
    left_out: list[str] = []
    for least in sheet.least:
        if sum(_width(sheet, column) + 2 for column in columns) <= room:
            break
        if least in columns:
            columns.remove(least)
            left_out.insert(0, sheet.header[least])
    blocks: list[list[int]] = [[]]
    for column in columns:
        if blocks[-1] and sum(_width(sheet, each) + 2 for each in [*blocks[-1], column]) > room:
            blocks.append([])
        blocks[-1].append(column)
    return blocks, left_out


def _width(sheet: Table, column: int) -> int:
    """Characters of the widest cell of a column, its heading included."""
    cells = (len(row[column].text) + row[column].tied for row in sheet.rows)
    return max(len(sheet.header[column]), *cells, 0)
