r"""Renders tables of cells as LaTeX for a paper.

Each is a ``threeparttable`` with booktabs rules; its notes stand below it, as wide as it is. The text of records is
escaped throughout; only the words of ``--caption``, ``--label`` and ``--rename`` are LaTeX as they stand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from harness import safe_read
from harness.errors import BadInput, unknown
from harness.leaderboard.footnotes import DIFFER
from harness.leaderboard.text_tables import RECONSTRUCTED, TIED, Table, TableCell

PACKAGES = r"% needs \usepackage{booktabs,threeparttable}"


@dataclass(frozen=True)
class Wording:
    """What the user says of a table, LaTeX as it stands; ``rename`` holds words ``OLD=NEW``."""

    caption: str | None = None
    label: str | None = None
    rename: Sequence[str] = ()


def latex(sheets: Sequence[Table], wording: Wording | None = None) -> str:
    """The tables, each in a ``table`` environment of its own.

    Raises BadInput for a caption or a label with several tables, and for a name to be replaced that none of them has.
    """
    said = wording or Wording()
    for flag, value in (("--caption", said.caption), ("--label", said.label)):
        if value is not None and len(sheets) != 1:
            raise BadInput(
                f"{flag} is for one table, and this prints {len(sheets)}: choose one with --layout grid, or with "
                "--layout tasks -t TASK"
            )
    known = {name for sheet in sheets for name in _names(sheet)}
    rename = dict(_pair(word, known) for word in said.rename)
    return "\n\n".join([PACKAGES, *(_table(sheet, said, rename) for sheet in sheets)]) if sheets else ""


def _pair(word: str, known: Set[str]) -> tuple[str, str]:
    """OLD and NEW of ``OLD=NEW``; names of rows hold equals signs too, so OLD is the longest name that is known."""
    ends = [i for i, character in enumerate(word) if character == "="]
    for end in reversed(ends):
        if word[:end] in known:
            return word[:end], word[end + 1 :]
    if not ends:
        raise BadInput(f"--rename {word!r} is not OLD=NEW, a name in these tables and the one to print")
    raise unknown("name in these tables: --rename", word[: ends[0]], known)


def _table(sheet: Table, said: Wording, rename: Mapping[str, str]) -> str:
    header = " & ".join(_renamed(name, rename) for name in sheet.header)
    body = "\n".join(f"{' & '.join(_row(cells, rename))} \\\\" for cells in sheet.rows)
    columns = "l" + ("l" if sheet.words else "r") * (len(sheet.header) - 1)
    whole = ". ".join(filter(None, (_renamed(sheet.title, rename), _latex(sheet.subtitle)))) + "."
    # Every differing line of the convention cards would fill a page of notes; the table of cards has them.
    short = (f"{DIFFER}: harness table --cards" if note.startswith(DIFFER) else note for note in sheet.notes)
    notes = "\n".join(rf"\item {_latex(note)}" for note in short)
    lines = [
        f"% {safe_read.printable(sheet.title)}",
        r"\begin{table}",
        r"\centering",
        r"\begin{threeparttable}",
        rf"\caption{{{whole if said.caption is None else said.caption}}}",
        rf"\label{{{said.label or 'tab:' + _slug(sheet.title)}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        rf"{header} \\",
        r"\midrule",
        body,
        r"\bottomrule",
        r"\end{tabular}",
        *([r"\begin{tablenotes}\footnotesize", notes, r"\end{tablenotes}"] if notes else []),
        r"\end{threeparttable}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _row(cells: Sequence[TableCell], rename: Mapping[str, str]) -> list[str]:
    first, *rest = cells
    return [_emphasised(first, _renamed(first.text, rename)), *(_emphasised(c, _number(c.text)) for c in rest)]


def _emphasised(cell: TableCell, text: str) -> str:
    text = {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}.get(cell.rank, text)
    return text + (_latex(TIED) if cell.tied else "")


def _names(sheet: Table) -> set[str]:
    """What may be renamed: the title, the columns, the rows by label, and the methods of the rows."""
    rows = {cells[0].text.removesuffix(RECONSTRUCTED) for cells in sheet.rows}
    return {sheet.title, *sheet.header, *rows, *(row.partition(" (")[0] for row in rows)}


def _renamed(text: str, rename: Mapping[str, str]) -> str:
    """``text`` with its new name: as a whole, or its method in front of the settings that set it apart."""
    plain = text.removesuffix(RECONSTRUCTED)
    mark = _latex(text[len(plain) :])
    if plain in rename:
        return rename[plain] + mark
    name, bracket, rest = plain.partition(" (")
    return (rename.get(name) or _latex(name)) + _latex(bracket + rest) + mark


def _number(text: str) -> str:
    """A cell with its minus signs as such."""
    return re.sub(r"(?<![\w.-])-(?=\d)", "$-$", _latex(text))


def _slug(title: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", title).strip("-").lower()


_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", RECONSTRUCTED: r"$^\ddagger$",
    TIED: r"$^\dagger$", "–": "--", "≥": r"$\geq$", "≤": r"$\leq$", "±": r"$\pm$", "×": r"$\times$", "…": r"\dots{}",
    "<": r"$<$", ">": r"$>$", "|": r"$|$", "\n": " ",
} | {character: f"\\{character}" for character in "&%$#_{}"}  # fmt: skip


def _latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in safe_read.printable(text.replace("\n", " ")))
