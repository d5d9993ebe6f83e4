r"""Renders tables of cells as LaTeX for a paper.

Each is a ``threeparttable`` with booktabs rules, and its notes have its width. The text of records is
escaped throughout; only the texts of ``--caption``, ``--label`` and ``--rename`` are raw LaTeX.

A table fits the lines of LaTeX's ``article``: a wide one leaves out its least important columns, then takes smaller
type, then breaks the names of its rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

from harness import safe_read
from harness.errors import BadInput, unknown
from harness.leaderboard import labels
from harness.leaderboard.labels import DIFFER
from harness.leaderboard.text_tables import RECONSTRUCTED, TIED, Table, TableCell

PACKAGES = r"% needs \usepackage{booktabs,threeparttable}"
LONG = r"% needs \usepackage{booktabs,threeparttable,longtable}"
PAGE = 40  # rows of a table on one page; a longer one breaks over pages and does not float
LINE = 330.0  # points: a line of article at 10 points is 345, and widths are estimates
SIZES = ((r"", 1.0, 6.0), (r"\small", 0.9, 5.0), (r"\footnotesize", 0.8, 4.0), (r"\scriptsize", 0.7, 3.0))


@dataclass(frozen=True)
class Wording:
    """The user's text for a table, as raw LaTeX; ``rename`` holds words ``OLD=NEW``."""

    caption: str | None = None
    label: str | None = None
    rename: Sequence[str] = ()


@dataclass(frozen=True)
class _Fit:
    """How a table fits a line: its columns by position, type size with space between columns, width of names."""

    columns: Sequence[int]
    size: str
    beside: float
    names: float | None = None  # points; None where the longest name fits


def latex(tables: Sequence[Table], wording: Wording | None = None, every_column: bool = False) -> str:
    """The tables, each in its own ``table`` environment. ``every_column``: none is left out of a wide table.

    Raises BadInput for a caption or label with several tables, and for a name to replace that no table has.
    """
    texts = wording or Wording()
    for flag, value in (("--caption", texts.caption), ("--label", texts.label)):
        if value is not None and len(tables) != 1:
            raise BadInput(
                f"{flag} is for one table, but this prints {len(tables)}: choose one with --layout grid, or with "
                "--layout tasks -t TASK"
            )
    known = {name for table in tables for name in _names(table)}
    rename = dict(_pair(word, known) for word in texts.rename)
    packages = LONG if any(len(table.rows) > PAGE for table in tables) else PACKAGES
    return "\n\n".join([packages, *(_table(table, texts, rename, every_column) for table in tables)]) if tables else ""


def _pair(word: str, known: Set[str]) -> tuple[str, str]:
    """OLD and NEW of ``OLD=NEW``; names of rows hold equals signs too, so OLD is the longest name that is known."""
    ends = [i for i, character in enumerate(word) if character == "="]
    for end in reversed(ends):
        if word[:end] in known:
            return word[:end], word[end + 1 :]
    if not ends:
        raise BadInput(f"--rename {word!r} is not OLD=NEW, a name in these tables and the one to print")
    raise unknown("name in these tables: --rename", word[: ends[0]], known)


def _fit(table: Table, first: Sequence[str], every_column: bool) -> _Fit:
    """How ``table`` fits, whose first column is ``first`` as printed."""
    rest = list(zip(*table.rows, strict=True))[1:] if table.rows else [()] * (len(table.header) - 1)
    named = max(map(_width, first), default=0.0)
    wide = [
        named,
        *(max([_width(head), *map(_cell_width, cells)]) for head, cells in zip(table.header[1:], rest, strict=True)),
    ]
    least = [] if every_column else list(table.least)
    kept = list(range(len(table.header)))

    def needs(columns: Sequence[int], share: float, beside: float) -> float:
        return share * sum(wide[i] for i in columns) + 2 * beside * len(columns)

    for left_out in range(len(least) + 1):
        kept = [i for i in range(len(table.header)) if i not in least[:left_out]]
        for size, share, beside in SIZES[:2]:
            if needs(kept, share, beside) <= LINE:
                return _Fit(kept, size, beside)
    for size, share, beside in SIZES[2:]:
        if needs(kept, share, beside) <= LINE:
            return _Fit(kept, size, beside)
    size, share, beside = SIZES[-1]
    return _Fit(kept, size, beside, max(LINE / 4, LINE - needs(kept[1:], share, beside) - 2 * beside))


def _width(text: str) -> float:
    """About how wide ``text`` is at 10 points, in points."""
    return sum(
        2.9 if c in ".,:;'|!ijl" else 3.9 if c in " ()[]/-ft" else 8.0 if c in "mw%@±†‡…" or c.isupper() else 5.0
        for c in text
    )


def _cell_width(cell: TableCell) -> float:
    return _width(cell.text) * (1.16 if cell.rank == 1 else 1.0) + (4.5 if cell.tied else 0.0)


def _table(table: Table, texts: Wording, rename: Mapping[str, str], every_column: bool) -> str:
    """One table in an environment of its own: a ``longtable`` where it does not fit a page, else a ``table``."""
    names = [labels.plain_label(cells[0].text) for cells in table.rows]
    fit = _fit(table, names, every_column)
    header = " & ".join(_renamed(table.header[i], rename) for i in fit.columns)
    rows = [_row([cells[i] for i in fit.columns], rename) for cells in table.rows]
    if fit.names is not None:
        rows = [[rf"\raggedright {first}", *others] for first, *others in rows]
    body = "\n".join(f"{' & '.join(cells)} \\\\" for cells in rows)
    first = "l" if fit.names is None else f"p{{{fit.names:.0f}pt}}"
    columns = first + ("l" if table.words else "r") * (len(fit.columns) - 1)
    left_out = [name for i, name in enumerate(table.header) if i not in fit.columns]
    size = f"{fit.size}\\setlength{{\\tabcolsep}}{{{fit.beside:g}pt}}" if fit.size else ""
    whole = _caption(_renamed(table.title, rename), _latex(table.subtitle))
    # All differing lines of the convention cards would fill a page of notes; --cards prints them as a table.
    short = [f"{DIFFER}: harness table --cards" if note.startswith(DIFFER) else note for note in table.notes]
    head = [
        f"% {safe_read.printable(table.title)}",
        *([f"% left out, to fit the line: {', '.join(left_out)}; --columns names those to print"] if left_out else []),
    ]
    caption = rf"\caption{{{whole if texts.caption is None else texts.caption}}}"
    label = rf"\label{{{texts.label or 'tab:' + _slug(table.title)}}}"
    top = [r"\toprule", rf"{header} \\", r"\midrule"]
    if len(rows) > PAGE:
        below = "\\\\\n".join(_latex(note) for note in short)
        return "\n".join(
            [
                *head, rf"{{{size}", rf"\begin{{longtable}}{{{columns}}}", caption, rf"{label} \\",
                *top, r"\endfirsthead",
                *top, r"\endhead", r"\bottomrule", r"\endfoot", body, r"\end{longtable}",
                *([rf"\noindent\footnotesize\raggedright {below}\par"] if below else []), "}",
            ]
        )  # fmt: skip
    notes = "\n".join(rf"\item {_latex(note)}" for note in short)
    lines = [
        *head,
        r"\begin{table}",
        rf"\centering{size}",
        r"\begin{threeparttable}",
        caption,
        label,
        rf"\begin{{tabular}}{{{columns}}}",
        *top,
        body,
        r"\bottomrule",
        r"\end{tabular}",
        *([r"\begin{tablenotes}\footnotesize", notes, r"\end{tablenotes}"] if notes else []),
        r"\end{threeparttable}",
        r"\end{table}",
    ]
    return "\n".join(lines)


def _caption(title: str, subtitle: str) -> str:
    """Title and subtitle as sentences; the name of a task or of a metric keeps its letters."""
    if title[:1].islower():
        return f"Scores on {title}{f': {subtitle}' if subtitle else ''}."
    word = re.match(r"[a-z]+(?![\w@])", subtitle)
    return ". ".join(filter(None, (title, subtitle[:1].upper() + subtitle[1:] if word else subtitle))) + "."


def _row(cells: Sequence[TableCell], rename: Mapping[str, str]) -> list[str]:
    first, *rest = cells
    return [_emphasised(first, _renamed(first.text, rename)), *(_emphasised(c, _number(c.text)) for c in rest)]


def _emphasised(cell: TableCell, text: str) -> str:
    text = {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}.get(cell.rank, text)
    return text + (_latex(TIED) if cell.tied else "")


def _names(table: Table) -> set[str]:
    """The names that --rename can replace: the title, the columns, the rows by label, and the methods of the rows."""
    rows = {cells[0].text.removesuffix(RECONSTRUCTED) for cells in table.rows}
    return {table.title, *table.header, *rows, *(row.partition(" (")[0] for row in rows)}


def _renamed(text: str, rename: Mapping[str, str]) -> str:
    """``text`` with its new name: as a whole, or its method in front of the settings that set it apart."""
    plain = text.removesuffix(RECONSTRUCTED)
    mark = _latex(text[len(plain) :])
    if plain in rename:
        return rename[plain] + mark
    name, bracket, rest = labels.plain_label(plain).partition(" (")
    return (rename.get(name) or _latex(name)) + _latex(bracket + rest) + mark


def _number(text: str) -> str:
    """A cell with typographic minus signs."""
    return re.sub(r"(?<![\w.-])-(?=\d)", "$-$", _latex(text))


def _slug(title: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", title).strip("-").lower()


_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", RECONSTRUCTED: r"$^\ddagger$",
    TIED: r"$^\dagger$", "–": "--", "≥": r"$\geq$", "≤": r"$\leq$", "±": r"$\pm$", "×": r"$\times$", "…": r"\dots{}",
    "<": r"$<$", ">": r"$>$", "|": r"$|$", "\n": " ", "\0": "{}",
} | {character: f"\\{character}" for character in "&%$#_{}"}  # fmt: skip


def _latex(text: str) -> str:
    plain = re.sub("-(?=-)", "-\0", safe_read.printable(text.replace("\n", " ")))  # two hyphens are not a dash
    return "".join(_LATEX.get(character, character) for character in plain)
