"""Scores with intervals: one panel per task, one line per method; untrained student and teacher as dashed lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.leaderboard import labels
from harness.leaderboard.footnotes import MICRO
from harness.leaderboard.rows import LeaderboardRow, Section
from harness.leaderboard.text_tables import RECONSTRUCTED
from harness.reports.plots import theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMNS = 3  # panels side by side
LEGEND = (
    "95 % intervals. Filled: best; hollow: not distinguishable from the best; grey: the rest. "
    "Dashed: models that were not trained."
)


def figure(sections: Sequence[Section], scheme: str = "light", columns: int = COLUMNS) -> Figure:
    """One panel for each of ``sections``. Filled: the best; hollow: not distinguishable from it; grey: below it."""
    from matplotlib.figure import Figure

    columns = min(columns, len(sections))
    lines = -(-len(sections) // columns)
    tallest = max(len(_competitors(section)) for section in sections)
    with theme.drawing(scheme):
        longest = max(len(name) for section in sections for name in _names(_competitors(section)))
        size = ((2.3 + 0.075 * longest) * max(columns, 2), lines * (1.05 + 0.27 * tallest))
        drawn = Figure(figsize=size, layout="constrained")
        grid = drawn.subplots(lines, columns, squeeze=False)
        for axes in grid.flat[len(sections) :]:
            axes.set_axis_off()
        for axes, section in zip(grid.flat, sections, strict=False):
            _panel(axes, section, scheme)
        drawn.get_layout_engine().set(w_pad=0.12, h_pad=0.08, wspace=0.06)
        theme.below(drawn, [LEGEND, *standing_notes(sections)], scheme)
    return drawn


def standing_notes(sections: Sequence[Section]) -> list[str]:
    """The notes that every figure of ``sections`` needs: choice of rows, generated problems, reconstructions."""
    chosen = [note for section in sections for note in (section.view, *section.aside)]
    return list(dict.fromkeys([*filter(None, chosen), *(n for s in sections for n in s.notes if _stands(n))]))


def _stands(note: str) -> bool:
    return note == MICRO or note.startswith(RECONSTRUCTED)


def _competitors(section: Section) -> list[LeaderboardRow]:
    return [row for row in section.rows if not row.reference]


def _panel(axes: Any, section: Section, scheme: str) -> None:
    rows, shown = _competitors(section), section.scale.shown
    for i, row in enumerate(rows):
        best = row.rank == 1
        name = "accent" if best or row.tied else "faint"
        shade, score = theme.colour(name, scheme), shown(row.score)
        axes.plot(
            [shown(row.low), shown(row.high)], [i, i], color=shade, linewidth=1.8, solid_capstyle="round", zorder=2
        )
        face = theme.colour("paper", scheme) if row.tied and not best else shade
        marker = "D" if row.kind != "measured" else "o"
        axes.plot(score, i, marker, color=shade, markerfacecolor=face, markersize=6, markeredgewidth=1.6, zorder=3)
        axes.annotate(
            section.scale.text(row.score), (1.015, i), xycoords=("axes fraction", "data"), va="center", fontsize=8,
            fontweight="bold" if best else "normal", color=theme.colour("ink", scheme), annotation_clip=False,
        )  # fmt: skip
    for row in section.rows:
        if row.reference:
            axes.axvline(shown(row.score), color=theme.colour("muted", scheme), linewidth=0.9, dashes=(3, 2), zorder=1)
            axes.annotate(
                row.method, (shown(row.score), 1.0), xycoords=("data", "axes fraction"), xytext=(0, 2),
                textcoords="offset points", ha="center", fontsize=7, color=theme.colour("muted", scheme),
            )  # fmt: skip
    axes.margins(x=0.06)
    axes.set_yticks(range(len(rows)), _names(rows))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.xaxis.grid(True, linewidth=0.6)
    axes.set_xlabel(f"{section.metric_axis} of {section.problems} problems")
    axes.set_title(theme.wrapped(section.named, 44), pad=16)


def _names(rows: Sequence[LeaderboardRow]) -> list[str]:
    return [
        f"{labels.plain_label(row.label)}{RECONSTRUCTED if row.reconstruction else ''}"
        + ("" if row.kind == "measured" else " (reported)")
        for row in rows
    ]
