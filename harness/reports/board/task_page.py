"""A task under one protocol: its rows at equal compute, at equal steps and all of them; score against cost; curves."""

from __future__ import annotations

from typing import Any

from harness.leaderboard import labels, text_tables
from harness.leaderboard.inference import LEVEL
from harness.leaderboard.rows import LeaderboardRow, Section
from harness.leaderboard.text_tables import TIED
from harness.reports.board import formatting, overview
from harness.reports.board.pages import Site
from harness.reports.plots import curves, pareto, theme
from harness.reports.plots.scores import standing_notes

COSTS = ("flops", "tokens", "seconds")
COLUMNS = (  # field, heading, what it means, whether it is shown from the start
    ("over_baseline", "Gain", "difference from the baseline under the same recipe; in parentheses within noise", True),
    ("recovery", "Recovery", "share of the way from the untrained student to the teacher; in parentheses within noise",
     True),
    ("flops", "FLOPs", "floating-point operations of training, median over the seeds", True),
    ("steps", "Steps", "optimizer steps", False),
    ("teacher_tokens", "Teacher", "tokens through the teacher in training", False),
    ("generated_tokens", "Generated", "tokens sampled for training", False),
    ("student_tokens", "Student", "tokens through the student in training", False),
    ("seconds", "Seconds", "of training, wall clock", False),
    ("peak_memory_bytes", "Memory", "peak in training, bytes", False),
    ("errors", "Errors", "completions whose grading failed", False),
    ("truncated", "Cut", "completions cut at the length limit", False),
)  # fmt: skip
_ONLY_IF_ANY = ("over_baseline", "recovery", "errors", "truncated", "flops")


def write(site: Site, section: Section) -> None:
    """Writes the page of ``section``'s task and protocol, and the curves of its rows."""
    file = formatting.task_file(section.task, section.protocol)
    runs = [run for row in section.rows for run in row.run_ids if run in site.by_run]
    key = [[site.by_run[run]["content_sha256"] for run in runs], section.title, site.order, site.warnings]
    site.data(f"t-{file}", key, lambda: _series(site, section))
    overview.copies_file(site, f"c-{file}", key, {kind: [one] for kind, one in _views(site, section)}, of_tasks=True)
    site.page(f"tasks/{file}.html", "task.html.j2", "board chart task", key, lambda: _context(site, section, file))


def _context(site: Site, section: Section, file: str) -> dict[str, Any]:
    views = [_table(site, one) | {"kind": kind} for kind, one in _views(site, section)]
    first = next(site.by_run[run] for row in section.rows for run in row.run_ids if run in site.by_run)
    return {
        "title": section.title,
        "here": "task",
        "section": section,
        "family": first["family"],
        "world": first["world"],
        "views": views,
        "names": overview.NAMES,
        "costs": [(name, pareto.COSTS[name]) for name in COSTS],
        "figures": _pareto(section, site.order),
        "notes": standing_notes([section]),
        "data": f"t-{file}",
        "copies": f"c-{file}",
    }


def _views(site: Site, section: Section) -> list[tuple[str, Section]]:
    """The views of the rows of ``section``'s task under its protocol."""
    of = (section.task, section.protocol)
    return [(kind, one) for kind, sections in site.views.items() for one in sections if (one.task, one.protocol) == of]


def _table(site: Site, section: Section) -> dict[str, Any]:
    rows = [row for row in section.rows if not row.reference and row.kind == "measured"]
    marks = [row for row in section.rows if row.reference and row.kind == "measured"]
    axis = formatting.axis_around(rows or marks, [row.score for row in marks])
    standing = standing_notes([section])
    speaks = {
        field for field, *_ in COLUMNS
        if field not in _ONLY_IF_ANY or any(getattr(row, field) not in (None, 0) for row in section.rows)
    }  # fmt: skip
    return {
        "section": section,
        "summary": _summary(rows),
        "tie": next((note for note in section.notes if note.startswith(TIED)), ""),
        "asides": [note for note in section.notes if not note.startswith(TIED) and note not in standing],
        "axis": axis,
        "lines": [row.score for row in marks if axis["low"] <= row.score <= axis["high"]],
        "fields": [column for column in COLUMNS if column[0] in speaks],
        "rows": [_row(site, row) for row in rows],
        "marks": [_row(site, row) for row in marks],
    }


def _summary(rows: list[LeaderboardRow]) -> str:
    """The answer in a sentence: the best row, and how many others it is not distinguishable from."""
    if len(rows) < 2:
        return ""
    best, tied = rows[0], sum(row.tied for row in rows)
    text = f"{labels.plain_label(best.label)} is best with {best.scale.text(best.score)}"
    if not tied:
        return f"{text}, distinguishable from every other."
    return f"{text}; {tied} of {len(rows) - 1} others are not distinguishable from it."


def _row(site: Site, row: LeaderboardRow) -> dict[str, Any]:
    runs = [(seed, site.files[run]) for seed, run in zip(row.seeds, row.run_ids, strict=False) if run in site.files]
    return {"it": row, "runs": runs, "cells": {field: _text(row, field) for field, *_ in COLUMNS}}


def _text(row: LeaderboardRow, field: str) -> str:
    value = getattr(row, field)
    if field in ("over_baseline", "recovery"):
        if value is None:
            return ""
        text = (
            row.scale.signed(value) if field == "over_baseline" else text_tables.percent(value).replace(" ", "\u202f")
        )
        text = formatting.minus(text)
        return text if getattr(row, f"{field}_p") < LEVEL else f"({text})"
    if row.reference and field not in ("errors", "truncated"):
        return ""  # not trained, so it has no cost
    if field.endswith("bytes"):
        return formatting.amount(value, "B") if value else ""
    return f"{value:.0f}" if field in ("seconds", "steps") else formatting.amount(value)


def _pareto(section: Section, order: list[str]) -> dict[str, str]:
    figures = {}
    for cost in COSTS:
        rows = pareto.rows_of(section, cost)
        if not rows:
            continue
        titles = {
            f"p{i}": f"{labels.plain_label(row.label)}: {row.scale.text(row.score)} "
            f"[{row.scale.text(row.low)}, {row.scale.text(row.high)}], "
            f"{formatting.amount(pareto.cost(row, cost))} {pareto.COSTS[cost]}"
            for i, row in enumerate(rows)
        }
        best = ", ".join(labels.plain_label(row.label) for row in pareto.frontier(rows, cost))
        label = f"{section.title}: {section.metric} against {pareto.COSTS[cost]}. Best score at its cost: {best}."
        figure = pareto.figure([section], cost, order, size=(9.6, 4.6), titled=False)
        figures[cost] = theme.inline_svg(figure, label, f"f{cost[:2]}", titles)
    return figures


def _series(site: Site, section: Section) -> dict[str, Any]:
    """The learning curves of the rows: for each metric the mean and the range over the seeds by step."""
    series = curves.series([section], site.by_run, site.store.root)
    metrics = curves.metrics_of(series)
    return {
        "metrics": [[name, curves.METRICS.get(name, name.replace("_", " "))] for name in metrics],
        "series": [
            {
                "label": labels.plain_label(one.label) + ("‡" if one.reconstruction else ""),
                "runs": list(one.run_ids),
                "seeds": len(one.curves),
                "colour": site.order.index(one.label) % len(theme.SERIES) + 1,
                "dash": site.order.index(one.label) // len(theme.SERIES) % len(theme.DASHES),
                "tokens": one.tokens_per_step,
                "tables": {name: [[float(f"{x:.5g}") for x in point] for point in table]
                           for name in metrics if (table := one.table(name))},
            }
            for one in series
        ],
    }  # fmt: skip
