"""The front page: the sections of the leaderboard, the figures, and, separately, the numbers that papers report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness import registry
from harness.leaderboard import numbers
from harness.leaderboard.inference import LEVEL
from harness.leaderboard.rows import LeaderboardRow, Section
from harness.leaderboard.text_tables import TIED
from harness.papers import beside_printed
from harness.papers.printed_rows import PrintedRow
from harness.reports.board import words
from harness.reports.board.pages import Site
from harness.reports.plots import curves, pareto, theme
from harness.reports.plots.curves import METRICS
from harness.reports.plots.scores import standing_notes

COSTS = ("seconds", "flops", "tokens", "teacher_tokens")
COLUMNS = (  # field, heading, what it means
    (
        "over_baseline",
        "Over baseline",
        "difference from the baseline under the same recipe; in parentheses within noise",
    ),
    ("recovery", "Recovery", "share of the way from the untrained student to the teacher; in parentheses within noise"),
    ("teacher_tokens", "Teacher", "tokens through the teacher in training"),
    ("generated_tokens", "Generated", "tokens sampled for training"),
    ("student_tokens", "Student", "tokens through the student in training"),
    ("seconds", "Seconds", "of training, wall clock"),
    ("peak_memory_bytes", "Memory", "peak in training, bytes"),
    ("errors", "Errors", "verdicts that could not be reached"),
    ("truncated", "Cut", "completions cut at the length limit"),
)
_ONLY_IF_ANY = ("over_baseline", "recovery", "errors", "truncated")


def context(site: Site, names: Mapping[str, str], diffs: Mapping[tuple[str, ...], str]) -> dict[str, Any]:
    """The data of the template."""
    boards = [_board(site, section, names) for section in site.sections]
    for number, (board, section) in enumerate(zip(boards, site.sections, strict=True)):
        board["figures"] = _pareto(section, site.order, number)
    boards += [_board(site, section, names) | {"figures": {}} for section in site.equal]
    reported = [_cell(paper, cell) for paper in site.papers for cell in paper["cells"]]
    real = {section.task for section in site.sections if "@" not in section.task}
    reported += [_printed(row) for row in beside_printed.rows(site.papers, real)]
    comparable = [s.title for s in site.sections if sum(row.run_ids in diffs for row in s.rows) > 1]
    for board in boards:
        board["compare"] = comparable.index(board["title"]) if board["title"] in comparable else None
    records = site.records
    return {
        "title": "Leaderboard",
        "here": "index",
        "boards": boards,
        "columns": COLUMNS,
        "costs": [(name, pareto.COSTS[name]) for name in COSTS],
        "curves": _curves(site),
        "colours": [(label, i % len(theme.SERIES) + 1) for i, label in enumerate(site.order)],
        "reported": reported,
        "papers": [{k: paper.get(k, "") for k in ("id", "title", "url", "about", "notes")} for paper in site.papers],
        "choices": _choices(boards, reported),
        "warnings": site.warnings,
        "notes": standing_notes(site.sections),
        "facts": {
            "records": len(records),
            "methods": len({row.method for s in site.sections for row in s.rows if not row.reference}),
            "tasks": len({s.task for s in site.sections}),
            "seeds": len({record["seed"] for record in records}),
            "newest": max((record["created"][:10] for record in records), default=""),
        },
    }


def _board(site: Site, section: Section, names: Mapping[str, str]) -> dict[str, Any]:
    rows = [row for row in section.rows if not row.reference and row.kind == "measured"]
    marks = [row for row in section.rows if row.reference and row.kind == "measured"]
    first = next(site.by_run[run] for row in section.rows for run in row.run_ids if run in site.by_run)
    ends = [end for row in (*rows, *marks) for end in (row.low, row.high, row.score)]
    speaks = {
        field for field, *_ in COLUMNS
        if field not in _ONLY_IF_ANY or any(getattr(row, field) not in (None, 0) for row in section.rows)
    }  # fmt: skip
    return {
        "title": section.title,
        "task": section.task,
        "family": first["family"],
        "world": first["world"],
        "protocol": section.protocol,
        "differs": section.differs,
        "view": section.view,
        "metric": section.metric,
        "scale": section.scale,
        "problems": section.problems,
        "tie": next((note for note in section.notes if note.startswith(TIED)), ""),
        "asides": [
            note for note in section.notes if not note.startswith(TIED) and note not in standing_notes([section])
        ],
        "axis": words.axis(ends, section.scale),
        "fields": [column for column in COLUMNS if column[0] in speaks],
        "rows": [_row(row, names) for row in rows],
        "marks": [_row(row, names) for row in marks],
    }


def _row(row: LeaderboardRow, names: Mapping[str, str]) -> dict[str, Any]:
    standing = "best" if row.rank == 1 else "tied" if row.tied else "mark" if row.reference else "below"
    runs = [(seed, names[run]) for seed, run in zip(row.seeds, row.run_ids, strict=False) if run in names]
    return {"it": row, "standing": standing, "runs": runs, "cells": {f: _text(row, f) for f, *_ in COLUMNS}}


def _text(row: LeaderboardRow, field: str) -> str:
    value = getattr(row, field)
    if field in ("over_baseline", "recovery"):
        if value is None:
            return ""
        text = row.scale.signed(value) if field == "over_baseline" else numbers.percent(value).replace(" ", "\u202f")
        text = words.minus(text)
        return text if getattr(row, f"{field}_p") < LEVEL else f"({text})"
    if row.reference and field not in ("errors", "truncated"):
        return ""  # not trained, so it has no cost
    if field.endswith("bytes"):
        return words.amount(value, "B") if value else ""
    return f"{value:.0f}" if field == "seconds" else words.amount(value)


def _pareto(section: Section, order: Sequence[str], number: int) -> dict[str, str]:
    found = {}
    for cost in COSTS:
        rows = pareto.rows_of(section, cost)
        if not rows:
            continue
        said = {
            f"p{i}": f"{row.label}: {row.scale.text(row.score)} "
            f"[{row.scale.text(row.low)}, {row.scale.text(row.high)}], "
            f"{words.amount(pareto.cost(row, cost))} {pareto.COSTS[cost]}"
            for i, row in enumerate(rows)
        }
        best = ", ".join(row.label for row in pareto.frontier(rows, cost))
        label = f"{section.title}: {section.metric} against {pareto.COSTS[cost]}. Best score at its cost: {best}."
        figure = pareto.figure([section], cost, order)
        found[cost] = theme.inline_svg(figure, label, f"f{number}{cost[:2]}{COSTS.index(cost)}", said)
    return found


def _curves(site: Site) -> dict[str, Any]:
    series = curves.series(site.sections, site.by_run, site.store.root)
    known = set().union(*(one.metrics() for one in series))
    metrics = [*(m for m in METRICS if m in known), *sorted(known - METRICS.keys())]
    figures = {}
    for number, metric in enumerate(metrics):
        said = {f"c{i}": one.label for i, one in enumerate(series)}
        label = f"{METRICS.get(metric, metric)} over optimizer steps, mean over seeds and their range"
        figures[metric] = theme.inline_svg(
            curves.figure(series, metric, site.order, size=(9.4, 3.7)), label, f"l{number}", said
        )
    legend = [
        {"label": one.label, "reconstruction": one.reconstruction, "seeds": len(one.curves), "i": i,
         "colour": site.order.index(one.label) % len(theme.SERIES) + 1}
        for i, one in enumerate(series)
    ]  # fmt: skip
    return {"figures": figures, "names": {m: METRICS.get(m, m.replace("_", " ")) for m in metrics}, "legend": legend}


def _cell(paper: Mapping[str, Any], cell: Mapping[str, Any]) -> dict[str, Any]:
    """A number that a paper prints, with its facts and their status."""
    score, n = cell["value"]["value"], cell["n"]["value"]
    share = score / 100
    error = 100 * (share * (1 - share) / n) ** 0.5 if n and 0 <= share <= 1 else None
    facts = {key: cell[key] for key in ("metric", "n", "count", "decoding", "judge", "student", "teacher")}
    return {
        "paper": paper["id"], "url": paper.get("url", ""), "method": paper.get("method", paper["id"]),
        "task": cell["task"], "dataset": cell.get("dataset", cell["task"]), "family": cell["family"],
        "score": score, "error": error, "value": cell["value"], "facts": facts,
    }  # fmt: skip


def _printed(row: PrintedRow) -> dict[str, Any]:
    """A cell of a printed table, in the form of :func:`_cell`."""
    cell = row.theirs
    known = {"metric": cell.metric, "n": cell.n, "student": cell.student, "teacher": cell.teacher, "judge": cell.judge}
    facts = {
        key: _fact(value or None, cell.locator) for key, value in {**known, "count": None, "decoding": None}.items()
    }
    return {
        "paper": cell.paper, "url": "", "method": row.method, "task": row.task, "dataset": cell.benchmark,
        "family": registry.find(registry.TASKS, row.task).family, "score": cell.value,
        "error": beside_printed.standard_error(row), "value": _fact(cell.text, cell.locator), "facts": facts,
    }  # fmt: skip


def _fact(value: Any, source: str) -> dict[str, Any]:
    return {"value": value, "status": "unknown" if value is None else "known", "source": source}


def _choices(boards: Sequence[Mapping[str, Any]], reported: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """The choices of each filter: (value, text)."""
    protocols = {b["protocol"]: f"{b['protocol'][:12]} {b['task']}" for b in boards}
    worlds = {b["world"] for b in boards} | ({"real"} if reported else set())
    kinds = [("measured", "measured here")] * bool(boards) + [("reported", "reported by papers")] * bool(reported)
    return {
        "task": [(t, t) for t in sorted({b["task"] for b in boards} | {c["task"] for c in reported})],
        "family": [(f, f) for f in sorted({b["family"] for b in boards} | {c["family"] for c in reported})],
        "world": [(w, {"micro": "micro (generated)", "real": "real benchmarks"}.get(w, w)) for w in sorted(worlds)],
        "protocol": sorted(protocols.items(), key=lambda pair: pair[1].partition(" ")[2]),
        "kind": kinds,
    }
