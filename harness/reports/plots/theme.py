"""The style of figures and their files: PNG and PDF for papers, SVG that follows a light or dark theme.

A figure is drawn in the light or in the dark colours. An adaptive SVG file holds the light colours, which any program
shows, and a style block that replaces each on a dark page. Inline on a page each colour is a CSS variable of the page.
"""

from __future__ import annotations

import io
import os
import re
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from harness.errors import BadInput, RunFailed
from harness.leaderboard.labels import plain_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("svg", "png", "pdf")
THEMES = ("light", "dark", "auto")  # auto: SVG that follows the reader's scheme

# name: (light, dark). No colour twice within a scheme, because colours are identified by their value.
COLOURS = {
    "paper": ("#fdfcfa", "#15181c"),
    "ink": ("#1f2328", "#e6e4df"),
    "muted": ("#666c75", "#9aa1ab"),
    "line": ("#e4e1da", "#2c3138"),
    "accent": ("#0f766d", "#5ccfc0"),
    "faint": ("#8d949e", "#777f8a"),
    "s1": ("#0f766e", "#4fd1c4"),
    "s2": ("#b45309", "#f3ad57"),
    "s3": ("#4f46e5", "#a3b0fb"),
    "s4": ("#be185d", "#f48bb8"),
    "s5": ("#4d7c0f", "#a5d66f"),
    "s6": ("#0369a1", "#64b5ee"),
    "s7": ("#64748b", "#a4b0bf"),
    "s8": ("#c42b1c", "#fb8a80"),
}
SERIES = tuple(name for name in COLOURS if re.fullmatch(r"s\d", name))
DASHES = ("-", (0, (5, 1.6)), (0, (1.2, 1.4)), (0, (6, 1.5, 1.2, 1.5)))  # distinguish series of equal colour
MARKERS = ("o", "s", "^", "D")
FONTS = 'ui-sans-serif, system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'

_RC = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # ships with matplotlib, so figures are equal everywhere
    "font.size": 9,
    "text.parse_math": False,  # a method named $x$ is not a formula
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "xtick.major.width": 0.8,
    "ytick.major.width": 0.8,
    "savefig.dpi": 200,
    "svg.hashsalt": "harness",  # equal figures are equal files
}


def colour(name: str, scheme: str = "light") -> str:
    """The colour called ``name`` in a scheme, as ``#rrggbb``."""
    return COLOURS[name][scheme == "dark"]


def of_series(index: int, scheme: str = "light") -> tuple[str, str, object]:
    """(colour, marker, dash) of the series with this number; the first eight differ in colour."""
    turn, place = divmod(index, len(SERIES))
    return colour(SERIES[place], scheme), MARKERS[turn % len(MARKERS)], DASHES[turn % len(DASHES)]


def wrapped(title: str, wide: int) -> str:
    """A title on as many lines of ``wide`` characters as it needs; nothing is cut."""
    return "\n".join(textwrap.wrap(title, wide)) or title


@contextmanager
def drawing(scheme: str = "light", **changes: object) -> Iterator[None]:
    """Draws and writes in the harness's style, independent of the user's matplotlib settings."""
    import matplotlib

    ink, muted, line = (colour(name, scheme) for name in ("ink", "muted", "line"))
    colours = {
        "text.color": ink,
        "axes.titlecolor": ink,
        "axes.labelcolor": muted,
        "axes.edgecolor": line,
        "xtick.color": line,
        "ytick.color": line,
        "xtick.labelcolor": muted,
        "ytick.labelcolor": ink,
        "grid.color": line,
        "figure.facecolor": colour("paper", scheme),
        "axes.facecolor": "none",
    }
    with matplotlib.rc_context(matplotlib.rcParamsDefault | _RC | colours | changes):
        yield


def below(figure: Figure, notes: Sequence[str], scheme: str) -> None:
    """Writes ``notes``, each on as many lines as it needs, below the figure, which grows by their height."""
    wide, tall = figure.get_size_inches()
    notes = [line for note in notes for line in textwrap.wrap(plain_label(note), int(16 * wide))]
    room = 0.16 * len(notes) + 0.1
    figure.set_size_inches(wide, tall + room)
    share = room / (tall + room)
    figure.get_layout_engine().set(rect=(0, share, 1, 1 - share))
    for i, note in enumerate(reversed(notes)):
        place = (0.07 + 0.16 * i) / (tall + room)
        figure.text(0.09 / wide, place, note, fontsize=7.5, color=colour("muted", scheme))


def inline_svg(figure: Figure, label: str, prefix: str, titles: Mapping[str, str] | None = None) -> str:
    """The figure as an ``<svg>`` element for a page that defines ``--paper``, ``--ink``, …

    ``prefix`` keeps the ids of several figures on one page apart; ``titles`` names groups (by their gid) in words
    that a pointer or a screen reader finds.
    """
    text = _variables(_svg(figure, fonts=False))
    text = text[text.index("<svg") :]
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", text)
    for group, words in (titles or {}).items():
        opening = f'<g id="{prefix}-{group}">'
        text = text.replace(opening, f"{opening}<title>{escape(words)}</title>", 1)
    size = re.search(r'viewBox="([^"]*)"', text)[1]
    head = f'<svg class="figure" role="img" aria-label="{escape(label, {chr(34): "&quot;"})}" viewBox="{size}">'
    return re.sub(r"\s*\n\s*", "\n", head + text[text.index(">") + 1 :]).strip()


def write(figure: Figure, path: Path, theme: str = "light") -> Path:
    """Writes ``figure`` in the format of ``path``'s ending. Raises BadInput for an unknown ending or theme."""
    ending = path.suffix.lower().lstrip(".")
    if ending not in FORMATS:
        raise BadInput(f"--out {path}: ends in none of {', '.join('.' + f for f in FORMATS)}")
    if theme == "auto" and ending != "svg":
        raise BadInput(f"--theme auto is for .svg alone: a {ending} cannot adapt; use light or dark")
    if path.is_dir():
        raise BadInput(f"--out {path} is a folder; name a file")
    content = _content(figure, ending, theme)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=f".{ending}")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)
    except OSError as error:
        raise RunFailed(f"{path} could not be written ({error.strerror})") from None
    return path


def _content(figure: Figure, ending: str, theme: str) -> bytes:
    if ending == "svg":
        text = _svg(figure, fonts=theme != "auto")
        return (_adaptive(text) if theme == "auto" else text).encode("utf-8")
    buffer = io.BytesIO()
    with drawing():
        figure.savefig(buffer, format=ending, metadata={"CreationDate": None} if ending == "pdf" else None)
    return buffer.getvalue()


def _svg(figure: Figure, *, fonts: bool) -> str:
    """SVG text; ``fonts``: draws letters as outlines, equal in every program."""
    text = io.StringIO()
    with drawing(**{"svg.fonttype": "path" if fonts else "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    svg = re.sub(r"<!--.*?-->|<!DOCTYPE.*?>|<metadata>.*?</metadata>\s*", "", text.getvalue(), flags=re.DOTALL)
    return svg if fonts else re.sub(r"'DejaVu Sans'(, sans-serif)?", "inherit", svg)


def _variables(svg: str) -> str:
    for name, (light, _) in COLOURS.items():
        svg = svg.replace(light, f"var(--{name})")
    return svg


def _adaptive(svg: str) -> str:
    """An SVG file in the light colours, which a style block replaces on a dark page."""
    dark = "".join(
        f'[style*="{part}: {pair[0]}"]{{{part}:{pair[1]}!important}}'
        for pair in COLOURS.values() for part in ("fill", "stroke") if f"{part}: {pair[0]}" in svg
    )  # fmt: skip
    style = f"<style>text{{font-family:inherit}}@media(prefers-color-scheme:dark){{{dark}}}</style>"
    start = svg.index(">", svg.index("<svg"))
    family = f' font-family="{escape(FONTS, {chr(34): chr(39)})}"'
    return svg[:start] + family + ">" + style + svg[start + 1 :]
