"""Leaderboard sections as text: Markdown, CSV, JSON, LaTeX, HTML. Numbers are formatted here and nowhere else."""

from __future__ import annotations

import csv
import dataclasses
import html
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.errors import BadInput, unknown
from harness.leaderboard.rows import RECONSTRUCTED, TIED, Row, Section

Emphasis = Callable[[str, int | None], str]  # text and rank


def render(sections: Sequence[Section], format: str) -> str:
    """The tables as ``md``, ``csv``, ``json``, ``latex`` or ``html`` text without a final line end."""
    if format not in _FORMATS:
        raise unknown("format", format, _FORMATS)
    return _FORMATS[format](sections)


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
        | {"label": row.label, "tied_with_best": row.tied, "protocol_differs": section.differs, "notes": section.notes}
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


def _lines(section: Section, emphasise: Emphasis, escape: Callable[[str], str]) -> Iterator[list[str]]:
    """Each row as cells; the score is emphasised by rank and carries the mark of a tie."""
    for row in section.rows:
        cells = {name: escape(_COLUMNS[name](row)) for name in _columns(section)}
        cells["score"] = emphasise(cells["score"], row.rank) + (escape(TIED) if row.tied else "")
        yield [escape(row.label + (RECONSTRUCTED if row.reconstruction else "")), *cells.values()]


def _subtitle(section: Section) -> str:
    return f"{section.metric}, {section.problems} problems, protocol {section.protocol[:12]}"


# -- formats ---------------------------------------------------------------------------------------------------------


def _markdown(sections: Sequence[Section]) -> str:
    def emphasise(text: str, rank: int | None) -> str:
        return {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(rank, text)

    blocks = []
    for section in sections:
        header = ["method", *_columns(section)]
        lines = [header, ["---", *["---:"] * (len(header) - 1)]]
        lines += _lines(section, emphasise, _markdown_escape)
        table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
        notes = "  \n".join(_markdown_escape(note) for note in section.notes)
        blocks.append(f"### {_markdown_escape(section.title)}\n\n{_subtitle(section)}\n\n{table}\n\n{notes}".rstrip())
    return "\n\n".join(blocks) or "No records."


def _markdown_escape(text: str) -> str:
    return re.sub(r"([\\|*_<>`])", r"\\\1", text)


def _csv(sections: Sequence[Section]) -> str:
    rows = row_dicts(sections)
    names = [field.name for field in dataclasses.fields(Row)] + ["label", "tied_with_best", "protocol_differs", "notes"]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _csv_cell(value) for key, value in row.items()})
    return text.getvalue().rstrip("\n")


def _csv_cell(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return "; ".join(map(str, value))
    return json.dumps(value, sort_keys=True) if isinstance(value, dict) else value


def _json(sections: Sequence[Section]) -> str:
    return json.dumps(row_dicts(sections), indent=2, ensure_ascii=False)


def _latex(sections: Sequence[Section]) -> str:
    """booktabs tables; needs ``\\usepackage{booktabs}``."""

    def emphasise(text: str, rank: int | None) -> str:
        return {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}.get(rank, text)

    blocks = []
    for section in sections:
        names = _columns(section)
        header = " & ".join(_latex_escape(name) for name in ["method", *names])
        body = "\n".join(f"{' & '.join(cells)} \\\\" for cells in _lines(section, emphasise, _latex_escape))
        notes = r" \\ ".join(_latex_escape(note) for note in [_subtitle(section), *section.notes])
        blocks.append(
            f"% {section.title}\n\\begin{{table}}\n\\centering\n\\caption{{{_latex_escape(section.title)}}}\n"
            f"\\begin{{tabular}}{{l{'r' * len(names)}}}\n\\toprule\n{header} \\\\\n\\midrule\n{body}\n\\bottomrule\n"
            f"\\end{{tabular}}\n\n\\footnotesize {notes}\n\\end{{table}}"
        )
    return "\n\n".join(blocks)


_LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", RECONSTRUCTED: r"$^\ddagger$",
    TIED: r"$^\dagger$", "–": "--", "≥": r"$\geq$", "…": r"\dots{}", "\n": " ",
} | {character: f"\\{character}" for character in "&%$#_{}"}  # fmt: skip


def _latex_escape(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in text)


def _html(sections: Sequence[Section]) -> str:
    def emphasise(text: str, rank: int | None) -> str:
        return {1: f"<strong>{text}</strong>", 2: f"<u>{text}</u>"}.get(rank, text)

    blocks = []
    for section in sections:
        header = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in ["method", *_columns(section)])
        body = "\n".join(
            f'<tr><th scope="row">{cells[0]}</th>' + "".join(f"<td>{cell}</td>" for cell in cells[1:]) + "</tr>"
            for cells in _lines(section, emphasise, html.escape)
        )
        notes = "".join(f"<p>{html.escape(note)}</p>\n" for note in [_subtitle(section), *section.notes])
        blocks.append(
            f"<section>\n<table>\n<caption>{html.escape(section.title)}</caption>\n<thead><tr>{header}</tr></thead>\n"
            f"<tbody>\n{body}\n</tbody>\n</table>\n{notes}</section>"
        )
    return "\n".join(blocks)


_FORMATS = {"md": _markdown, "csv": _csv, "json": _json, "latex": _latex, "html": _html}
