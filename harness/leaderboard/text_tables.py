"""Tables of cells, and how they are rendered as Markdown or HTML; ``latex_tables`` renders LaTeX.

The best of a column is bold, the second underlined, and a dagger marks what is not distinguishable from the best.
"""

from __future__ import annotations

import html as entities
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from harness import safe_read

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

    ``least`` names the columns, by position, that a narrow terminal leaves out, the least important first.
    """

    title: str
    subtitle: str
    header: Sequence[str]
    rows: Sequence[Sequence[TableCell]]
    notes: Sequence[str] = field(default_factory=list)
    words: bool = False
    least: Sequence[int] = ()


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
