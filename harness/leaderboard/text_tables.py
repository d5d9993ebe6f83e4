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

    ``least`` names the columns, by position, that a narrow terminal leaves out, the least important first; ``below``
    those whose texts it writes under the table, each once with the rows it is of; ``terms`` says what a column means,
    which a terminal prints below those that it shows.
    """

    title: str
    subtitle: str
    header: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    notes: list[str] = field(default_factory=list)
    words: bool = False
    least: Sequence[int] = ()
    below: Sequence[int] = ()
    terms: Mapping[int, str] = field(default_factory=dict)


def plain(*texts: str) -> list[TableCell]:
    """A row of cells without ranks."""
    return [TableCell(text) for text in texts]


def _lines(table: Table, emphasise: Emphasis, escape: Callable[[str], str]) -> Iterator[list[str]]:
    for row in table.rows:
        yield [emphasise(escape(cell.text), cell.rank) + (escape(TIED) if cell.tied else "") for cell in row]


def markdown(tables: Sequence[Table]) -> str:
    def emphasise(text: str, rank: int | None) -> str:
        return {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(rank, text)

    blocks = []
    for table in tables:
        right = "---" if table.words else "---:"
        lines = [[markdown_text(name) for name in table.header], ["---", *[right] * (len(table.header) - 1)]]
        lines += _lines(table, emphasise, markdown_text)
        body = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        notes = "  \n".join(map(markdown_text, table.notes))
        parts = [f"### {markdown_text(table.title)}", markdown_text(table.subtitle), body, notes]
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


def html(tables: Sequence[Table]) -> str:
    def emphasise(text: str, rank: int | None) -> str:
        return {1: f"<strong>{text}</strong>", 2: f"<u>{text}</u>"}.get(rank, text)

    blocks = []
    for table in tables:
        header = "".join(f'<th scope="col">{_html(name)}</th>' for name in table.header)
        body = "\n".join(
            f'<tr><th scope="row">{cells[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in cells[1:]) + "</tr>"
            for cells in _lines(table, emphasise, _html)
        )
        notes = "".join(f"<p>{_html(note)}</p>\n" for note in filter(None, [table.subtitle, *table.notes]))
        blocks.append(
            f"<section>\n<table>\n<caption>{_html(table.title)}</caption>\n<thead><tr>{header}</tr></thead>\n"
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


def terminal(tables: Sequence[Table], width: int, *, colour: bool = True) -> Styled:
    """The tables as text of at most ``width`` columns; ``colour`` adds the escape sequences of a terminal."""
    stream = io.StringIO()
    console = Console(
        file=stream, width=width, force_terminal=colour, no_color=not colour, highlight=False, legacy_windows=False
    )
    for number, table in enumerate(map(_plainly, tables)):
        if number:
            console.print()
        _print(console, table, width)
    return Styled(stream.getvalue().rstrip("\n"))


def _plainly(table: Table) -> Table:
    """The table with numbers of steps in words, which are shorter: ``kd (340 steps)``."""
    rows = [[replace(row[0], text=plain_label(row[0].text)), *row[1:]] for row in table.rows]
    return replace(table, rows=rows, notes=[plain_label(note) for note in table.notes])


def _print(console: Console, table: Table, width: int) -> None:
    console.print(Text(printable(table.title), style="bold"))
    if table.subtitle:
        console.print(Text(printable(table.subtitle), style="dim"))
    blocks, left_out = _fitting(table, width)
    for columns in blocks:
        console.print(_terminal_block(table, columns))
    shown = [column for columns in blocks for column in columns]
    for column in table.below:
        for line in _below(table, column) if column not in shown else ():
            console.print(Text(printable(line)))
    terms = [table.terms[column] for column in shown if column in table.terms]
    notes = [*(["; ".join(terms)] if terms else [])]
    notes += [f"hidden to fit the width: {', '.join(left_out)} (--columns chooses)"] if left_out else []
    for note in [*map(_shortened, table.notes), *notes]:
        console.print(Text(printable(note), style="dim"))


def _below(table: Table, column: int) -> Iterator[str]:
    """The texts of a column, each once; where rows differ, with the rows that have it."""
    rows: dict[str, dict[str, None]] = {}
    for row in table.rows:
        rows.setdefault(row[column].text, {})[row[0].text] = None
    for text, names in rows.items():
        if text:
            yield f"{table.header[column]}: {text}" + (f"  ({'; '.join(names)})" if len(rows) > 1 else "")


def _shortened(note: str) -> str:
    """Leaves out a note that would fill a screen: all differing lines of the convention cards, which --cards shows."""
    return f"{DIFFER}: --cards shows them" if note.startswith(DIFFER) else note


def _terminal_block(table: Table, columns: Sequence[int]) -> RichTable:
    block = RichTable(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    block.add_column(Text(printable(table.header[0])), overflow="fold", min_width=min(NARROWEST, _width(table, 0)))
    for column in columns:
        block.add_column(
            Text(printable(table.header[column])), justify="left" if table.words else "right", overflow="fold"
        )
    for row in table.rows:
        block.add_row(*(_terminal_cell(row[column]) for column in (0, *columns)))
    return block


def _terminal_cell(cell: TableCell) -> Text:
    return Text(printable(cell.text) + (TIED if cell.tied else ""), style=LOOKS.get(cell.rank, ""))


def _fitting(table: Table, width: int) -> tuple[list[list[int]], list[str]]:
    """The columns of each block that fit next to the first one, and the headings of those left out.

    A table with removable columns (``Table.least``) loses those, one with columns of long texts (``Table.below``) all
    of these; any other is split into several blocks.
    """
    room = width - min(_width(table, 0), max(NARROWEST, width // 3))
    columns = list(range(1, len(table.header)))
    if sum(_width(table, column) + 2 for column in columns) > room:
        columns = [column for column in columns if column not in table.below]
    left_out: list[str] = []
    for least in table.least:
        if sum(_width(table, column) + 2 for column in columns) <= room:
            break
        if least in columns:
            columns.remove(least)
            left_out.insert(0, table.header[least])
    blocks: list[list[int]] = [[]]
    for column in columns:
        if blocks[-1] and sum(_width(table, each) + 2 for each in [*blocks[-1], column]) > room:
            blocks.append([])
        blocks[-1].append(column)
    return blocks, left_out


def _width(table: Table, column: int) -> int:
    """Characters of the widest cell of a column, its heading included."""
    cells = (len(row[column].text) + row[column].tied for row in table.rows)
    return max(len(table.header[column]), *cells, 0)
