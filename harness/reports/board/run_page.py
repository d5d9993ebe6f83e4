"""One record as a page: score, protocol and provenance, learning curves, completions."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from harness import metrics, registry
from harness.leaderboard.footnotes import MICRO
from harness.leaderboard.rows import LeaderboardRow, Section
from harness.metrics import Scale
from harness.records import curves, weights
from harness.records.record import Record, method_label, note_of
from harness.reports.board import words
from harness.reports.plots import theme
from harness.reports.plots.curves import BESIDES, METRICS

TEXT_AT_MOST = 12_000  # characters of one completion; the middle of a longer one is left out
PAGE_AT_MOST = 4_000_000  # characters of completions on one page


class Figures:
    """The curves of each training, drawn once for all the records that share it."""

    def __init__(self, root: Path):
        self.of = cache(lambda training: _curves(curves.read(root, training)))


def context(
    record: Record,
    rows: Sequence[Mapping[str, Any]] | None,
    missing: str | None,
    figures: Figures,
    section: Section | None,
    row: LeaderboardRow | None,
) -> dict[str, Any]:
    """The data of the template. ``section`` and ``row`` are None for an attempt that a later one supersedes."""
    method = record["method"]
    low, high = record["interval"]
    scale = metrics.scale_of(record)
    shown, left = _shown(rows or [], scale)
    notes = [MICRO] if record["world"] != "real" else []
    return {
        "title": f"{method_label(method)} on {record['task']}, seed {record['seed']}",
        "here": "run",
        "record": record,
        "label": method_label(method),
        "note": note_of(method),
        "scale": scale,
        "axis": words.axis(_around(low, high, record["score"], scale), scale),
        "differs": section.differs if section else "",
        "superseded": section is None,
        "notes": notes,
        "equation": equation(method["name"]),
        "facts": _facts(record, row),
        "curves": figures.of(record["training_id"]),
        "completions": shown,
        "left": left,
        "missing": missing,
        "tally": _tally(rows or [], scale),
        "kinds": {"all", *(one["kind"] for one in shown)},
    }


def _around(low: float, high: float, score: float, scale: Scale) -> list[float]:
    """An interval and its score, and both ends of an axis that leaves a tenth of the scale, or of the score, around."""
    margin = scale.width / 10 if scale.finite else abs(score) / 10
    return [low, high, score, max(scale.low, low - margin), min(scale.high, high + margin)]


def equation(name: str) -> str:
    """The docstring of the method's file: the equation and its symbols; "" for a method not installed here."""
    for entry in registry.entries(registry.METHODS):
        if entry.name == name:
            return entry.facts.get("module_doc") or ""
    return ""


def _facts(record: Record, row: LeaderboardRow | None) -> list[tuple[str, list[tuple[str, Any]]]]:
    """The card: groups of names and values, without empty values."""
    flat = {
        "Result": {
            "metric": record["metric"],
            "correct": f"{record['counts']['correct']:g} of {record['counts']['total']}",
            "errors": record["counts"]["errors"],
            "truncated": record["counts"]["truncated"],
            "interval": record["interval_method"],
            **record.get("measures", {}),
        },
        "Models": {
            "student": record["student"],
            "teacher": record["teacher"],
            "seed": record["seed"],
            "seeds in this row": ", ".join(map(str, row.seeds)) if row else None,
        },
        "Method settings": record["method"]["settings"],
        "Training": {k: v for k, v in record["spec"].items() if k in ("training", "rollout", "teacher_text", "loop")},
        "Cost": {name: _amount(name, value) for name, value in record["cost"].items()},
        "Token weights": weights.words(record),
        "Convention": record["convention"],
        "Protocol": {k: v for k, v in record["protocol"].items() if k not in ("task", "metric")},
        "Provenance": record["provenance"] | {"created": record["created"], "identity": record["identity"]},
    }
    groups = [(group, list(_pairs(values))) for group, values in flat.items()]
    return [(group, pairs) for group, pairs in groups if pairs]


def _pairs(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _pairs(value, f"{prefix}{key}.")
        elif value is not None and value != "":
            yield f"{prefix}{key}".removeprefix("training.").replace("_", " "), _short(value)


def _short(value: Any) -> Any:
    """Lists as written in Python; of a hash its beginning, as in run ids."""
    if isinstance(value, list):
        return repr(value)
    return f"{value[:16]}…" if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{32,}", value) else value


def _amount(name: str, value: float) -> str:
    if name.endswith("seconds"):
        return f"{value:,.1f} s"
    if name.endswith("bytes"):
        return words.amount(value, "B") if value else ""  # not measured, or never trained
    return words.amount(value)


def _shown(rows: Sequence[Mapping[str, Any]], scale: Scale) -> tuple[list[dict[str, Any]], int]:
    """The completions on the page, and the number left out to limit its size."""
    shown, size = [], 0
    for row in rows:
        text = row["text"]
        if len(text) > TEXT_AT_MOST:
            half = TEXT_AT_MOST // 2
            text = f"{text[:half]}\n\n[… {len(text) - 2 * half:,} characters left out here …]\n\n{text[-half:]}"
        size += len(text) + 400
        if size > PAGE_AT_MOST and shown:
            return shown, len(rows) - len(shown)
        shown.append({**row, "text": text, "kind": _kind(row, scale)})
    return shown, 0


def _kind(row: Mapping[str, Any], scale: Scale) -> str:
    """The verdict in a word: right, partly right or wrong where scores count right answers, else ``graded``."""
    if row["error"]:
        return "error"
    if not scale.counts:
        return "graded"
    return "right" if row["score"] >= 1 else "wrong" if row["score"] <= 0 else "partly"


def _tally(rows: Sequence[Mapping[str, Any]], scale: Scale) -> dict[str, int]:
    found = {"all": len(rows)}
    for row in rows:
        kind = _kind(row, scale)
        found[kind] = found.get(kind, 0) + 1
    return found


def _curves(points: Sequence[curves.Point]) -> list[str]:
    """A small figure for each quantity that the training logged; none if no curve was kept."""
    names = {name for point in points for name in point} - {*BESIDES, "learning_rate"}
    ordered = [*(name for name in METRICS if name in names), *sorted(names - METRICS.keys())]
    return [_curve(points, name, f"r{number}") for number, name in enumerate(ordered)]


def _curve(points: Sequence[curves.Point], name: str, prefix: str) -> str:
    from matplotlib.figure import Figure

    pairs = [(point["step"], point[name]) for point in points if point.get(name) is not None]
    with theme.drawing():
        figure = Figure(figsize=(4.1, 2.3))
        axes = figure.add_axes((0.14, 0.2, 0.83, 0.66))  # much faster than computing a layout, and there are many
        axes.plot(
            [step for step, _ in pairs], [value for _, value in pairs], color=theme.colour("accent"), linewidth=1.5
        )
        axes.set_title(METRICS.get(name, name.replace("_", " ")), fontsize=9, fontweight="normal")
        axes.yaxis.grid(True, linewidth=0.6)
        axes.set_xlabel("optimizer step", fontsize=8)
        axes.margins(x=0.01)
        if name == "on_policy":
            axes.set_ylim(-0.04, 1.04)
    return theme.inline_svg(figure, f"{METRICS.get(name, name)} over optimizer steps", prefix)
