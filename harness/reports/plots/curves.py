"""Learning curves: the logged values of a training by step, mean and range over the seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness.leaderboard import labels
from harness.leaderboard.rows import Section, labels_of
from harness.leaderboard.text_tables import RECONSTRUCTED
from harness.records import curves
from harness.records.record import Record
from harness.reports.plots import theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

METRICS = {  # logged values in words, in order of preference
    curves.HELD_OUT: "KL(teacher, student) on held-out text, nats per token",
    "validation_loss": "loss on held-out references, nats per token",
    "loss": "objective (each method its own)",
    "loss_data": "objective on reference responses",
    "loss_teacher": "objective on the teacher's text",
    "loss_student": "objective on the student's text",
    "loss_replay": "objective on the student's earlier text",
    "loss_mixed": "objective on text of both models",
    "grad_norm": "gradient norm before clipping",
    "on_policy": "share of student-written text",
    "learning_rate": "learning rate",
}
TOKENS, STEPS = AXES = ("tokens", "steps")
BESIDES = ("step", "seconds")  # the horizontal axes of a curve


@dataclass(frozen=True)
class Series:
    """One method under one recipe: a curve for each of its seeds."""

    label: str
    reconstruction: bool
    curves: tuple[tuple[curves.Point, ...], ...]
    tokens_per_step: float = 0.0  # through student and teacher, and sampled: the mean over the training
    run_ids: tuple[str, ...] = ()  # those of its row

    def metrics(self) -> set[str]:
        return {name for curve in self.curves for point in curve for name in point} - set(BESIDES)

    def table(self, metric: str) -> list[tuple[float, float, float, float]]:
        """(step, mean, lowest, highest) over the seeds, at the steps that all of them have."""
        by_seed = [{p["step"]: p[metric] for p in c if p.get(metric) is not None} for c in self.curves]
        steps = sorted(set.intersection(*map(set, by_seed))) if by_seed else []
        values = [[seed[step] for seed in by_seed] for step in steps]
        return [(s, sum(v) / len(v), min(v), max(v)) for s, v in zip(steps, values, strict=True)]


def series(sections: Sequence[Section], records: Mapping[str, Record], root: Path | str) -> list[Series]:
    """The curves kept below ``root`` for the rows of ``sections``, each training once, by label."""
    by_trainings: dict[tuple[str, ...], Series] = {}
    names = labels_of(sections)
    for section in sections:
        for row in section.rows:
            trainings = tuple(sorted({records[run]["training_id"] for run in row.run_ids if run in records}))
            if row.reference or not trainings or trainings in by_trainings:
                continue
            kept = tuple(tuple(points) for t in trainings if (points := curves.read(root, t)))
            if kept:
                tokens = row.student_tokens + row.teacher_tokens + row.generated_tokens
                each = tokens / max(row.steps, 1)
                by_trainings[trainings] = Series(names[row.key], row.reconstruction, kept, each, row.run_ids)
    return sorted(by_trainings.values(), key=lambda one: one.label)


def metrics_of(shown: Sequence[Series]) -> list[str]:
    """The values logged by any series; first those on held-out text, which measure the same for all methods."""
    known = set().union(*(one.metrics() for one in shown))
    return [*(name for name in METRICS if name in known), *sorted(known - METRICS.keys())]


def figure(
    shown: Sequence[Series],
    metric: str,
    order: Sequence[str],
    scheme: str = "light",
    size: tuple[float, float] = (8.2, 3.8),
    axis: str = TOKENS,
) -> Figure:
    """One line for each series that reports ``metric``; the group ``c<i>`` holds the line of ``shown[i]``.

    ``axis`` is "tokens", those of the whole training spread evenly over its steps, or "steps".
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    with theme.drawing(scheme):
        drawn = Figure(figsize=size, layout="constrained")
        axes = drawn.subplots()
        for i, one in enumerate(shown):
            table = one.table(metric)
            if not table:
                continue
            shade, _, dash = theme.of_series(order.index(one.label), scheme)
            steps, mean, low, high = zip(*table, strict=True)
            if axis == TOKENS:
                steps = [step * one.tokens_per_step for step in steps]
            if len(one.curves) > 1:
                axes.fill_between(steps, low, high, color=shade, alpha=0.14, linewidth=0, gid=f"r{i}")
            axes.plot(
                steps,
                mean,
                color=shade,
                linestyle=dash,
                linewidth=1.5,
                label=labels.plain_label(one.label) + (RECONSTRUCTED if one.reconstruction else ""),
                gid=f"c{i}",
            )
        axes.set_xlabel("tokens of training, through and from both models" if axis == TOKENS else "optimizer step")
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
        axes.set_ylabel(METRICS.get(metric, metric.replace("_", " ")))
        axes.yaxis.grid(True, linewidth=0.6)
        axes.margins(x=0.01)
        if metric == "on_policy":
            axes.set_ylim(-0.04, 1.04)
    return drawn


def with_legend(drawn: Figure) -> Figure:
    """Adds a legend next to a figure, for files; pages have buttons instead."""
    axes = drawn.axes[0]
    if axes.get_legend_handles_labels()[0]:
        with theme.drawing():
            axes.legend(
                frameon=False, fontsize=8, labelcolor=axes.xaxis.label.get_color(), loc="center left",
                bbox_to_anchor=(1.01, 0.5),
            )  # fmt: skip
    return drawn
