"""Score against cost. The line joins the best scores at each cost or less; only the bars show the uncertainty."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.leaderboard import labels
from harness.leaderboard.rows import LeaderboardRow, Section
from harness.leaderboard.text_tables import RECONSTRUCTED
from harness.reports.plots import theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COSTS = {
    "seconds": "seconds of training",
    "teacher_tokens": "tokens through the teacher in training",
    "tokens": "tokens through student and teacher, or sampled, in training",
    "flops": "floating-point operations of training",
    "peak_memory_bytes": "peak memory of training, bytes",
}


NAMED_AT_MOST = 24  # rows of a panel
Box = tuple[float, float, float, float]  # left, right, low, high, in pixels


def cost(row: LeaderboardRow, name: str) -> float:
    """The cost of a row under one of :data:`COSTS`, of training alone."""
    if name == "tokens":
        return row.student_tokens + row.teacher_tokens + row.generated_tokens
    return float(getattr(row, name))


def rows_of(section: Section, name: str) -> list[LeaderboardRow]:
    """The trained rows whose cost is known."""
    return [row for row in section.rows if not row.reference and row.kind == "measured" and known(row, name)]


def known(row: LeaderboardRow, name: str) -> bool:
    return name == "tokens" or getattr(row, name) is not None


def frontier(rows: Sequence[LeaderboardRow], name: str) -> list[LeaderboardRow]:
    """The rows that no other beats in score at the same or lower cost, cheapest first."""
    best, unbeaten = float("inf"), []
    for row in sorted(rows, key=lambda row: (cost(row, name), row.scale.place(row.score))):
        if row.scale.place(row.score) < best:
            unbeaten.append(row)
            best = row.scale.place(row.score)
    return unbeaten


def figure(
    sections: Sequence[Section],
    name: str,
    order: Sequence[str],
    scheme: str = "light",
    columns: int = 3,
    size: tuple[float, float] | None = None,
    titled: bool = True,
) -> Figure:
    """One panel for each of ``sections``; ``order`` of labels gives every method its colour in all figures.

    ``titled``: each panel names its task, for a figure that is not on the page of one.
    """
    from matplotlib.figure import Figure

    columns = min(columns, len(sections))
    lines = -(-len(sections) // columns)
    with theme.drawing(scheme):
        size = size or ((4.8 if columns > 1 else 6.4) * columns, 4.0 * lines)
        drawn = Figure(figsize=size, layout="constrained")
        grid = drawn.subplots(lines, columns, squeeze=False)
        for axes in grid.flat[len(sections) :]:
            axes.set_axis_off()
        for axes, section in zip(grid.flat, sections, strict=False):
            _panel(axes, section, name, order, scheme)
            if titled:
                axes.set_title(theme.wrapped(section.named, 60))
    return drawn


def _panel(axes: Any, section: Section, name: str, order: Sequence[str], scheme: str) -> None:
    rows, shown = rows_of(section, name), section.scale.shown
    muted = theme.colour("muted", scheme)
    costs = [cost(row, name) for row in rows]
    _scale(axes, costs)
    edge = frontier(rows, name)
    axes.step(
        [cost(row, name) for row in edge], [shown(row.score) for row in edge], where="post",
        color=muted, linewidth=1, alpha=0.6, zorder=1,
    )  # fmt: skip
    for i, row in enumerate(rows):
        shade, marker, _ = theme.of_series(order.index(row.label), scheme)
        x, y = cost(row, name), shown(row.score)
        axes.plot(
            [x, x], [shown(row.low), shown(row.high)], color=shade, linewidth=1.2, alpha=0.55, zorder=2, gid=f"i{i}"
        )
        axes.plot(x, y, marker, color=shade, markersize=6.5, zorder=3, gid=f"p{i}")
    low, high = shown(min(row.low for row in rows)), shown(max(row.high for row in rows))
    reach = max(high - low, 50 * 10.0**-section.scale.digits)  # do not magnify scores that are close together
    for row in section.rows:
        if row.reference and row.kind == "measured":
            _mark(axes, row.method, shown(row.score), low - reach, high + reach / 2, muted)
            if low - reach <= shown(row.score) <= high + reach / 2:
                low, high = min(low, shown(row.score)), max(high, shown(row.score))
    axes.set_ylim(low - reach * 0.12, high + reach * 0.16)
    _labels(axes, rows, name, scheme)
    axes.yaxis.grid(True, linewidth=0.6)
    axes.set_xlabel(COSTS[name])
    axes.set_ylabel(section.metric_axis)


def _mark(axes: Any, name: str, score: float, low: float, high: float, shade: str) -> None:
    """Marks a model that was not trained by a dashed line, or by text at the edge if the line would be far off."""
    words = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": 7, "color": shade}
    if low <= score <= high:
        axes.axhline(score, color=shade, linewidth=0.9, dashes=(3, 2), zorder=0)
        axes.annotate(name, (0, score), xytext=(3, 2), ha="left", **words)
        return
    above = score > high
    axes.annotate(
        f"{name} {score:.1f} {'↑' if above else '↓'}", (1, int(above)), xytext=(0, -9 if above else 4), ha="right",
        **words | {"xycoords": "axes fraction"},
    )  # fmt: skip


def _scale(axes: Any, costs: Sequence[float]) -> None:
    """Sets a logarithmic scale if costs span more than a factor of four; zero gets a separate place on the left."""
    from matplotlib.ticker import EngFormatter, FixedLocator, NullLocator

    positive = [value for value in costs if value > 0]
    if positive and max(positive) > 4 * min(positive):
        if len(positive) < len(costs):
            axes.set_xscale("symlog", linthresh=min(positive) / 2, linscale=0.4)
        else:
            axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        at = _log_ticks(min(positive), max(positive))
        axes.xaxis.set_major_locator(FixedLocator(([0.0] if len(positive) < len(costs) else []) + at))
    else:
        axes.set_xlim(left=0)
        axes.set_xlim(0, 1.16 * max(costs, default=0) or 1)
    axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    axes.tick_params(axis="x", color=axes.yaxis.label.get_color())
    axes.margins(x=0.16, y=0.12)


def _log_ticks(low: float, high: float) -> list[float]:
    """Four or more round values of a logarithmic axis between two costs, or as many as there are."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 2, 3, 5, 7)):
        ticks = [d * 10.0**power for power in powers for d in digits]
        inside = [value for value in ticks if low / 1.15 <= value <= high * 1.15]
        if len(inside) >= 4:
            break
    return inside


def _labels(axes: Any, rows: Sequence[LeaderboardRow], name: str, scheme: str) -> None:
    """Writes names next to their points, where they cover the least of points, bars and other names.

    A name without room nearby moves away and is joined to its point by a thin line. If there are more rows than
    can be labelled, only those on the line of the best scores get names.
    """
    axes.figure.canvas.draw()
    unit = axes.figure.dpi / 72
    shown = rows[0].scale.shown
    places = {row.run_ids: axes.transData.transform((cost(row, name), shown(row.score))) for row in rows}
    points = [(x - 5 * unit, x + 5 * unit, y - 5 * unit, y + 5 * unit) for x, y in places.values()]
    bars = []
    for row in rows:
        x = places[row.run_ids][0]
        low, high = (axes.transData.transform((cost(row, name), shown(end)))[1] for end in (row.low, row.high))
        bars.append((x - unit, x + unit, low, high))
    edge = [axes.transData.transform((cost(row, name), shown(row.score))) for row in frontier(rows, name)]
    bars += [(x, other[0], y - 2 * unit, y + 2 * unit) for (x, y), other in itertools.pairwise(edge)]
    # Place the names of the most crowded points first: the others have more room.
    crowd = {key: sum(abs(x - a) < 90 * unit and abs(y - b) < 30 * unit for a, b in places.values())
             for key, (x, y) in places.items()}  # fmt: skip
    names: list[Box] = []
    named = rows if len(rows) <= NAMED_AT_MOST else frontier(rows, name)
    for row in sorted(named, key=lambda row: (-crowd[row.run_ids], -row.score)):
        x, y = places[row.run_ids]
        label = theme.wrapped(labels.plain_label(row.label) + (RECONSTRUCTED if row.reconstruction else ""), 36)
        written = axes.annotate(
            label, (cost(row, name), shown(row.score)), xytext=(8, 0), textcoords="offset points",
            va="center", fontsize=8, color=theme.colour("ink", scheme),
        )  # fmt: skip
        written.set_in_layout(False)  # place names within the axes, which they must not shrink
        extent = written.get_window_extent()
        wide, tall = extent.width + 3 * unit, extent.height + unit
        best = None
        for dx, dy in _OFFSETS:
            left = x + dx * unit if dx > 0 else x + dx * unit - wide
            box = (left, left + wide, y + dy * unit - tall / 2, y + dy * unit + tall / 2)
            # The worst overlap is with names, then points and the edge, then bars; a large distance is the least bad.
            poor = 8 * _covered(box, names) + 4 * _covered(box, points) + 4 * _beyond(box, axes.bbox)
            poor = (poor + _covered(box, bars)) / (wide * tall) + (abs(dx) + 1.5 * abs(dy)) / 150
            if best is None or poor < best[0]:
                best = poor, dx, dy, box
        _, dx, dy, box = best
        names.append(box)
        written.set_ha("left" if dx > 0 else "right")
        written.set_position((dx, dy))
        if abs(dy) > 14:
            axes.annotate(
                "", (cost(row, name), shown(row.score)), xytext=(dx * 0.9, dy), textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": theme.colour("faint", scheme), "linewidth": 0.6, "shrinkB": 3},
            )  # fmt: skip


_OFFSETS = [(8 * side, 8 * step * up) for step in range(9) for up in ((1, -1) if step else (1,)) for side in (1, -1)]


def _covered(box: Box, taken: Sequence[Box]) -> float:
    """The occupied area of ``box``."""
    shared = [max(0, min(box[1], b) - max(box[0], a)) * max(0, min(box[3], d) - max(box[2], c)) for a, b, c, d in taken]
    return float(sum(shared))


def _beyond(box: Box, inside: Any) -> float:
    """The area of ``box`` beyond the axes."""
    wide = max(0.0, box[1] - inside.x1) + max(0.0, inside.x0 - box[0])
    tall = max(0.0, box[3] - inside.y1) + max(0.0, inside.y0 - box[2])
    return wide * (box[3] - box[2]) + tall * (box[1] - box[0])
