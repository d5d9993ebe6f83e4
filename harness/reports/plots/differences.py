"""Differences with their uncertainty: every row minus one base row on every task, in one panel.

Rows are sorted by their average rank over the tasks. A mark is the difference on one task with the 95 % interval of
``harness compare``; it is filled if the difference is significant (p < 0.05, Holm-adjusted within the task).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput, unknown
from harness.leaderboard import compare, formats, inference, labels
from harness.leaderboard.inference import LEVEL, Completions, Group
from harness.leaderboard.rows import LeaderboardRow, Section
from harness.leaderboard.text_tables import RECONSTRUCTED
from harness.records.record import Record, roles_of
from harness.reports.plots import theme
from harness.reports.plots.scores import standing_notes
from harness.stats import intervals

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TASKS_AT_MOST = len(theme.SERIES)


@dataclass(frozen=True)
class Mark:
    """The difference of a row from the base on one task, as printed: points of the task's scale."""

    difference: float
    low: float
    high: float
    p: float  # Holm-adjusted over the rows of the task

    @property
    def sure(self) -> bool:
        return self.p < LEVEL


@dataclass(frozen=True)
class Lead:
    """One row: its label, its average rank, and its mark on each task by title; the base has none."""

    label: str
    rank: float | None
    marks: Mapping[str, Mark]


def of_sections(
    sections: Sequence[Section], records: Mapping[str, Record], completions: Completions, against: str | None = None
) -> tuple[str, list[Lead]]:
    """The label of the base and all rows by average rank. ``against`` names the base: a method or a row's label.

    Without a name it is the baseline, else the row of the best average rank. Raises BadInput if no row or several rows
    have the name.
    """
    shown = formats.main_lines(sections)[0][:TASKS_AT_MOST]
    lines = [line for line in formats.grid_lines(shown) if not line.reference]
    base = _base(lines, records, against)
    marks: dict[str, dict[str, Mark]] = {line.label: {} for line in lines}
    for section in shown:
        groups = {row.run_ids: _group(row, records, completions) for row in section.rows}
        seeds = inference.seed_variance(groups.values())
        results = []
        for line in lines:
            row, own = line.cells.get(section.title), base.cells.get(section.title)
            if row is None or own is None or line is base:
                continue
            try:
                names = (base.label, line.label)
                results.append((line.label, compare.of_groups(groups[own.run_ids], groups[row.run_ids], names, seeds)))
            except BadInput:  # nothing to pair
                continue
        shown_as = section.scale.shown
        for (label, it), p in zip(results, intervals.holm([it.p_holm for _, it in results]), strict=True):
            ends = (shown_as(it.comparison.interval.low), shown_as(it.comparison.interval.high))
            marks[label][section.title] = Mark(shown_as(it.comparison.difference), *ends, p)
    shown_labels = {
        line.label: labels.plain_label(line.label) + (RECONSTRUCTED if line.reconstruction else "") for line in lines
    }
    return shown_labels[base.label], [
        Lead(shown_labels[line.label], line.mean_rank, marks[line.label]) for line in lines
    ]


def _base(lines: Sequence[formats.GridLine], records: Mapping[str, Record], against: str | None) -> formats.GridLine:
    """The base row of the differences."""
    if not lines:
        raise BadInput("there is no trained row to compare")
    if against is None:
        baselines = [line for line in lines if roles_of(_record(line, records)).baseline]
        return baselines[0] if len(baselines) == 1 else lines[0]
    fits = [line for line in lines if against in (line.label, _row(line).method)]
    if not fits:
        raise unknown("row to compare with", against, {_row(line).method for line in lines})
    if len(fits) > 1:
        raise BadInput(
            f"--against {against}: {len(fits)} rows have this name: {', '.join(line.label for line in fits)}"
        )
    return fits[0]


def _row(line: formats.GridLine) -> LeaderboardRow:
    return next(iter(line.cells.values()))


def _record(line: formats.GridLine, records: Mapping[str, Record]) -> Record:
    return records[_row(line).run_ids[0]]


def _group(row: LeaderboardRow, records: Mapping[str, Record], completions: Completions) -> Group:
    members = [records[run] for run in row.run_ids]
    return Group(members, inference.read_matrix(members, completions))


def figure(
    sections: Sequence[Section],
    records: Mapping[str, Record],
    completions: Completions,
    against: str | None = None,
    scheme: str = "light",
) -> Figure:
    """The panel of :func:`of_sections`."""
    from matplotlib.figure import Figure

    base, leads = of_sections(sections, records, completions, against)
    titles = list(dict.fromkeys(title for lead in leads for title in lead.marks))
    shown = {section.title: section for section in sections}
    ink, muted = theme.colour("ink", scheme), theme.colour("muted", scheme)
    with theme.drawing(scheme):
        drawn = Figure(figsize=(8.6, 1.15 + (0.2 + 0.1 * max(len(titles), 2)) * len(leads)), layout="constrained")
        axes = drawn.subplots()
        for place, lead in enumerate(leads):
            _row_of(axes, place, lead, titles, scheme)
            rank = "" if lead.rank is None else f"{lead.rank:.1f}"
            axes.annotate(rank, (1.03, place), xycoords=("axes fraction", "data"), va="center", ha="center",
                          fontsize=10, color=ink, annotation_clip=False)  # fmt: skip
        axes.annotate("average\nrank", (1.03, 1.0), xycoords="axes fraction", xytext=(0, 4), va="bottom", ha="center",
                      textcoords="offset points", fontsize=7.5, color=muted, annotation_clip=False)  # fmt: skip
        axes.axvline(0, color=muted, linewidth=1, zorder=1)
        axes.set_yticks(range(len(leads)), [lead.label for lead in leads], fontsize=9.5)
        axes.set_ylim(len(leads) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.xaxis.grid(True, linewidth=0.6)
        axes.margins(x=0.04)
        units = list(dict.fromkeys(shown[title].scale.points for title in titles if title in shown))
        directions = list(dict.fromkeys(filter(None, (shown[title].scale.direction for title in titles))))
        axes.set_xlabel(", ".join([f"difference from {base}, {' and '.join(units) or 'points'}", *directions]))
        named = {title: shown[title].named for title in titles}
        handles = [axes.plot([], [], theme.MARKERS[i % len(theme.MARKERS)], linestyle="-", markersize=5, linewidth=1.6,
                             color=theme.of_series(i, scheme)[0], label=named[title])[0]
                   for i, title in enumerate(titles)]  # fmt: skip
        if handles:
            axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=min(len(handles), 4),
                        frameon=False, fontsize=8.5, labelcolor=ink, handlelength=1.8, columnspacing=1.6)  # fmt: skip
        legend = (
            "Lines: 95 % intervals, paired over problems and seeds. Filled: differs "
            "(p < 0.05, Holm-adjusted within a task); hollow: not distinguishable."
        )
        aside = {note for section in sections for note in section.aside}
        theme.below(drawn, [legend, *(note for note in standing_notes(sections) if note not in aside)], scheme)
    return drawn


def _row_of(axes: Any, place: int, lead: Lead, titles: Sequence[str], scheme: str) -> None:
    """The marks of a row, one below the other; the base is a point on the line."""
    if not lead.marks:
        axes.plot(0, place, "|", color=theme.colour("ink", scheme), markersize=11, zorder=4)
    gap = 0.56 / max(len(titles), 2)
    for i, title in enumerate(titles):
        mark = lead.marks.get(title)
        if mark is None:
            continue
        shade = theme.of_series(i, scheme)[0]
        at = place + (i - (len(titles) - 1) / 2) * gap
        axes.plot([mark.low, mark.high], [at, at], color=shade, linewidth=1.6, alpha=0.75, solid_capstyle="round")
        axes.plot(mark.difference, at, theme.MARKERS[i % len(theme.MARKERS)], color=shade, markersize=5, zorder=3,
                  markerfacecolor=shade if mark.sure else theme.colour("paper", scheme))  # fmt: skip
