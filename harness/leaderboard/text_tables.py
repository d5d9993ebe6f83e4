"""Tables of cells and the numbers in them, rendered as Markdown or HTML; ``latex_tables`` renders LaTeX.

The best of a column is bold, the second underlined, and a dagger marks what is not distinguishable from the best.
"""

from __future__ import annotations

import html as entities
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from harness import safe_read
from harness.leaderboard.labels import DIFFER, plain_label
from harness.metrics import PERCENT, Scale
from harness.safe_read import Styled, printable

TIED, RECONSTRUCTED, MISSING = "†", "‡", "–"
Emphasis = Callable[[str, int | None], str]  # text and rank


@dataclass(frozen=True)
class TableCell:
    text: str
    rank: int | None = None  # 1 is the best of its column
    tied: bool = False  # not distinguishable from the best


@dataclass(frozen=True)
class Table:
    """The first cell of a row names it; the others are right-aligned numbers, or text if ``words``.

    ``least`` names the columns, by position, that a narrow terminal leaves out, the least important first; ``terms``
    says what a column means, which a terminal prints below those that it shows.
    """

    title: str
    subtitle: str
    header: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    notes: list[str] = field(default_factory=list)
    words: bool = False
    least: Sequence[int] = ()
    terms: Mapping[int, str] = field(default_factory=dict)


def plain(*texts: str) -> list[TableCell]:
    """A row of cells without ranks."""
    return [TableCell(text) for text in texts]


def _lines(sheet: Table, emphasise: Emphasis, escape: Callable[[str], str]) -> Iterator[list[str]]:
    for row in sheet.rows:
        yield [emphasise(escape(cell.text), cell.rank) + (escape(TIED) if cell.tied else "") for cell in row]


def markdown(sheets: Sequence[Table]) -> str:
    def emphasise(text: str, rank: int | None) -> str:
        return {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(rank, text)

    blocks = []
    for sheet in sheets:
        right = "---" if sheet.words else "---:"
        lines = [[markdown_text(name) for name in sheet.header], ["---", *[right] * (len(sheet.header) - 1)]]
        lines += _lines(sheet, emphasise, markdown_text)
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        notes = "  \n".join(map(markdown_text, sheet.notes))
        parts = [f"### {markdown_text(sheet.title)}", markdown_text(sheet.subtitle), table, notes]
        blocks.append("\n\n".join(filter(None, parts)))
    return "\n\n".join(blocks)


def markdown_text(text: str) -> str:
    """Escapes the text of a cell, so that it forms no emphasis, tag, entity, link or bare address."""
    text = re.sub(r"([\\|*_`])", r"\\\1", safe_read.printable(text))
    text = re.sub(r"(<(?=[A-Za-z/!?])|&(?=#?\w+;))", r"\\\1", text)
    if re.search(r"\][(\[:]", text):  # an interval in brackets stays readable
        text = re.sub(r"([\[\]])", r"\\\1", text)
    return text.replace("://", ":\u200b//")


def _html(text: str) -> str:
    return entities.escape(safe_read.printable(text))


def html(sheets: Sequence[Table]) -> str:
    def emphasise(text: str, rank: int | None) -> str:
        return {1: f"<strong>{text}</strong>", 2: f"<u>{text}</u>"}.get(rank, text)

    blocks = []
    for sheet in sheets:
        header = "".join(f'<th scope="col">{_html(name)}</th>' for name in sheet.header)
        body = "\n".join(
            f'<tr><th scope="row">{cells[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in cells[1:]) + "</tr>"
            for cells in _lines(sheet, emphasise, _html)
        )
        notes = "".join(f"<p>{_html(note)}</p>\n" for note in filter(None, [sheet.subtitle, *sheet.notes]))
        blocks.append(
            f"<section>\n<table>\n<caption>{_html(sheet.title)}</caption>\n<thead><tr>{header}</tr></thead>\n"
            f"<tbody>\n{body}\n</tbody>\n</table>\n{notes}</section>"
        )
    return "\n".join(blocks)


PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def percent(share: float, digits: int = 0) -> str:
    """A share in percent: 0.25 is ``25 %``; what rounds to zero has no sign."""
    text = f"{100 * share:.{digits}f}"
    return f"{text.removeprefix('-') if float(text) == 0 else text} %"


def amount(value: float, unit: str = "") -> str:
    """A count in at most four characters, a prefix and its unit: ``950``, ``12.3 k``, ``4.56 MB``, ``30 s``."""
    for size, prefix in PREFIXES:
        # 999.9 k rounds to 1000 k, which is 1 M.
        if float(f"{value:.3g}") >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def spread(score: float, low: float, high: float, scale: Scale = PERCENT) -> str:
    """A score with half of its interval: ``45.7 ±7.0``.

    If the half width would leave the range of the scale, both ends are written: ``100.0 (97.5–100.0)``.
    """
    half = (high - low) / 2
    if score + half > scale.high or score - half < scale.low:
        return f"{scale.text(score)} ({scale.text(max(low, scale.low))}–{scale.text(min(high, scale.high))})"
    return f"{scale.text(score)} ±{scale.text(half)}"


# Prints tables for a terminal: aligned, coloured, and no wider than the window.
#
# The best of a column is bold and green, the second underlined; references are dim. Columns that do not fit are left
# out, the least important first, and named below the table.

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
    rows = [[replace(row[0], text=plain_label(row[0].text)), *row[1:]] for row in sheet.rows]
    return replace(sheet, rows=rows, notes=[plain_label(note) for note in sheet.notes])


def _print(console: Console, sheet: Table, width: int) -> None:
    console.print(Text(printable(sheet.title), style="bold"))
    if sheet.subtitle:
        console.print(Text(printable(sheet.subtitle), style="dim"))
    blocks, left_out = _fitting(sheet, width)
    for columns in blocks:
        console.print(_terminal_block(sheet, columns))
    shown = [sheet.terms[column] for columns in blocks for column in columns if column in sheet.terms]
    notes = [*(["; ".join(shown)] if shown else [])]
    notes += [f"hidden to fit the width: {', '.join(left_out)} (--columns chooses)"] if left_out else []
    for note in [*map(_shortened, sheet.notes), *notes]:
        console.print(Text(printable(note), style="dim"))


def _shortened(note: str) -> str:
    """Leaves out a note that would fill a screen: all differing lines of the convention cards, which --cards shows."""
    return f"{DIFFER}: --cards shows them" if note.startswith(DIFFER) else note


def _terminal_block(sheet: Table, columns: Sequence[int]) -> RichTable:
    table = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column(Text(printable(sheet.header[0])), overflow="fold", min_width=min(NARROWEST, _width(sheet, 0)))
    for column in columns:
        table.add_column(
            Text(printable(sheet.header[column])), justify="left" if sheet.words else "right", overflow="fold"
        )
    for row in sheet.rows:
        table.add_row(*(_terminal_cell(row[column]) for column in (0, *columns)))
    return table


def _terminal_cell(cell: TableCell) -> Text:
    return Text(printable(cell.text) + (TIED if cell.tied else ""), style=LOOKS.get(cell.rank, ""))


def _fitting(sheet: Table, width: int) -> tuple[list[list[int]], list[str]]:
    """The columns of each block that fit next to the first one, and the headings of those left out.

    A sheet with removable columns (``Table.least``) loses those; any other is split into several blocks.
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
