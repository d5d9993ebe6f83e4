"""One record as a page: its score and cost, its curves, and every problem with its question and verdict.

The page itself contains the numbers. Curves, problems and the card are packed in ``data/<run>.js``, the questions of a
task, which all its runs share, in ``data/q-<task>.js``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from harness import metrics, registry
from harness.errors import BadInput
from harness.evaluation import questions
from harness.leaderboard import equal_compute, inference, labels, text_tables
from harness.leaderboard.footnotes import MICRO
from harness.leaderboard.rows import LeaderboardRow, Section
from harness.metrics import Scale
from harness.records import curves
from harness.records.record import Record, method_label, note_of
from harness.reports.board import formatting
from harness.reports.board.pages import Site, readable
from harness.reports.plots.curves import BESIDES, METRICS
from harness.training import report

TEXT_AT_MOST = 12_000  # characters of one completion; the middle of a longer one is left out
RUN_AT_MOST = 4_000_000  # characters of completions of one run
COUNTED_NOW = ("score", "reason", "extracted", "finish", "tokens", "sample")


class Questions:
    """The questions of every task, read and written once for all the records that share them."""

    def __init__(self, site: Site):
        self.site = site
        self._of = cache(self._written)
        self._first: dict[tuple[str, str], Record] = {}

    def of(self, record: Record) -> tuple[str, str]:
        """The name of the data file with the questions of ``record``, and the reason if there is none (else "")."""
        key = (record["task"], record["protocol"]["hash"])
        self._first.setdefault(key, record)
        return self._of(key)

    def _written(self, key: tuple[str, str]) -> tuple[str, str]:
        if not self.site.questions:
            return "", "prompts and references were left out of this board"
        problems, reason = questions.of(self._first[key], fetch=False)
        if reason:
            return "", reason
        texts = {
            name: [_cut(questions.prompt_text(one)), _cut(questions.reference_text(one) or "")]
            for name, one in problems.items()
        }
        name = f"q-{formatting.task_file(*key)}"
        self.site.data(name, texts, lambda: texts)
        return name, ""


def write(
    site: Site, record: Record, section: Section | None, row: LeaderboardRow | None, question_files: Questions
) -> None:
    """Writes the page of a record and its data. ``section`` and ``row`` are None for a superseded attempt."""
    scores, missing = readable(site, record)
    if missing:
        site.warnings.append(missing)
    name = site.files[record["run_id"]]
    question_file, unasked = question_files.of(record)
    key = [record["content_sha256"], missing, row and row.seeds]
    site.data(name, key, lambda: _data(site, record, row, scores is not None))
    facts = [
        record["content_sha256"], missing, question_file, unasked,
        section and [section.title, section.differs], row and [row.run_ids, row.rank, row.tied, row.label],
        row and [row.over_baseline, row.over_baseline_p, row.baseline, row.recovery],
    ]  # fmt: skip
    site.page(
        f"runs/{name}.html", "run.html.j2", "board chart problems run", facts,
        lambda: _context(site, record, section, row, missing, question_file, unasked),
    )  # fmt: skip


def _context(
    site: Site, record: Record, section: Section | None, row: LeaderboardRow | None,
    missing: str, question_file: str, unasked: str,
) -> dict[str, Any]:  # fmt: skip
    method, scale = record["method"], metrics.scale_of(record)
    low, high = record["interval"]
    seeds = [(seed, site.files[run]) for seed, run in zip(row.seeds, row.run_ids, strict=False)
             if run in site.files] if row else []  # fmt: skip
    notes, folded = _notes(record)
    return {
        "title": f"{method_label(method)} on {record['task']}, seed {record['seed']}",
        "here": "run",
        "record": record,
        "label": labels.plain_label(row.label if row else method_label(method)),
        "row": row,
        "scale": scale,
        "axis": formatting.axis(_around(low, high, record["score"], scale), scale),
        "task_file": formatting.task_file(record["task"], record["protocol"]["hash"]) if section else "",
        "seeds": seeds,
        "superseded": section is None,
        "notes": notes,
        "folded": folded,
        "cost": _cost(record),
        "standing": _standing(row, section),
        "missing": missing,
        "data": site.files[record["run_id"]],
        "questions": question_file,
        "unasked": unasked,
    }


def _notes(record: Record) -> tuple[list[str], list[str]]:
    """The notes on the score; if there are many, those on data and training are returned separately, to fold away."""
    notes = [MICRO] if record["world"] != "real" else []
    if note := note_of(record["method"]):
        notes.append(f"{'‡ ' if record['method']['reconstruction'] else ''}{method_label(record['method'])}: {note}")
    of_score = [line for line in record["warnings"] if line.startswith(f"{record['task']}:")]
    others = [line for line in record["warnings"] if line not in of_score]
    return (
        ([*notes, *of_score], others)
        if len(record["warnings"]) > 3 and len(others) > 1
        else ([*notes, *record["warnings"]], [])
    )


def _cost(record: Record) -> dict[str, str]:
    """The cost of training in one large number, and the rest of it in words."""
    spent = record["cost"]
    if not spent["steps"]:
        return {"value": "", "unit": "", "rest": "evaluated without training"}
    try:
        value = text_tables.amount(equal_compute.flops(record), "FLOPs")
    except BadInput:
        value = text_tables.amount(equal_compute.cost(record, "tokens")) + " tokens"
    number, _, unit = value.partition(" ")
    tokens = text_tables.amount(equal_compute.cost(record, "tokens"))
    rest = f"{spent['steps']:,} steps, {tokens} tokens through and from both models, {spent['seconds']:,.0f} s"
    return {"value": number, "unit": unit, "rest": rest}


def _standing(row: LeaderboardRow | None, section: Section | None) -> str:
    """The row of a run among the others, over its seeds: rank, difference from the baseline, share of the way."""
    if row is None or section is None or row.reference:
        return ""
    parts = []
    if row.rank is not None:
        others = sum(not one.reference for one in section.rows)
        tied = ", not distinguishable from the best" if row.tied else ""
        parts.append(f"rank {row.rank} of {others} rows{tied}")
    if row.over_baseline is not None:
        gap, side = row.scale.text(abs(row.over_baseline)), "above" if row.over_baseline > 0 else "below"
        noise = "" if row.over_baseline_p < inference.LEVEL else ", within noise"
        parts.append(f"{gap} {row.scale.points} {side} {row.baseline}{noise}")
    if row.recovery is not None:
        parts.append(f"{text_tables.percent(row.recovery)} of the way to the teacher")
    over = f"over {len(row.seeds)} seeds: " if len(row.seeds) > 1 else ""
    return f"{over}{row.scale.text(row.score)}, {'; '.join(parts)}" if parts else ""


def _data(site: Site, record: Record, row: LeaderboardRow | None, readable: bool) -> dict[str, Any]:
    scale = metrics.scale_of(record)
    rows = site.store.completions(record) if readable else []
    kept, left = shown(rows, scale)
    return {
        "rows": kept,
        "left": left,
        "scores": list(inference.problem_scores(rows, record).items()),
        "points": curves.read(site.store.root, record["training_id"]),
        "names": {**METRICS},
        "besides": [*BESIDES, "learning_rate"],
        "steps": record["cost"]["steps"],
        "tokens": equal_compute.cost(record, "tokens"),
        "prompt": record.get("first_prompt") or "",
        "equation": _equation(record["method"]["name"]),
        "weights": _weights(record),
        "facts": _facts(record, row),
        "scale": card(scale),
    }


def card(scale: Scale) -> dict[str, Any]:
    """A scale for the scripts of the pages."""
    return scale.card() | {"points": scale.points, "counts": scale.counts}


def _around(low: float, high: float, score: float, scale: Scale) -> list[float]:
    """An interval and its score, and both ends of an axis with a margin of a tenth of the scale, or of the score."""
    margin = scale.width / 10 if scale.finite else abs(score) / 10
    return [low, high, score, max(scale.low, low - margin), min(scale.high, high + margin)]


@cache
def _equation(name: str) -> str:
    """The docstring of the method's file: the equation and its symbols; "" for a method not installed here."""
    for entry in registry.entries(registry.METHODS):
        if entry.name == name:
            return entry.facts.get("module_doc") or ""
    return ""


def _weights(record: Record) -> dict[str, Any]:
    """The report on a training's token weights, in words and with the shares to draw; empty without one."""
    weights = record.get("weights") or {}
    lines = report.weights_in_words(record)
    lines.pop(report.DISTRIBUTION, None)  # it is drawn
    if not lines:
        return {}
    return {"words": list(lines.items()), "edges": weights.get("edges", []), "shares": weights.get("shares", [])}


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
        "Convention": record["convention"],
        "Protocol": {k: v for k, v in record["protocol"].items() if k not in ("task", "metric")},
        "Provenance": record["provenance"] | {"created": record["created"], "identity": record["identity"]},
        "Completions": {"file": record["completions"]["file"], "number": record["completions"]["n"]},
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
    """Lists as written in Python; hashes shortened as in run ids."""
    if isinstance(value, list):
        return repr(value)
    if isinstance(value, bool):
        return str(value)
    return f"{value[:16]}…" if isinstance(value, str) and re.fullmatch(r"[0-9a-f]{32,}", value) else value


def _amount(name: str, value: float) -> str:
    if name.endswith("seconds"):
        return f"{value:,.1f} s"
    if name.endswith("bytes"):
        return formatting.amount(value, "B") if value else ""  # not measured, or never trained
    return formatting.amount(value)


def shown(rows: Sequence[Mapping[str, Any]], scale: Scale) -> tuple[list[dict[str, Any]], int]:
    """The completions on the page, and the number left out to limit its size."""
    kept, size = [], 0
    for row in rows:
        text = _cut(row["text"])
        size += len(text) + 400
        if size > RUN_AT_MOST and kept:
            return kept, len(rows) - len(kept)
        one = {"id": row["problem_id"], "text": text, "kind": kind(row, scale)}
        one |= {key: row[key] for key in COUNTED_NOW if row.get(key) not in (None, "")}
        for key in ("extracted", "words"):
            if row.get(key):
                one[key] = _cut(row[key])
        kept.append(one)
    return kept, 0


def _cut(text: str) -> str:
    if len(text) <= TEXT_AT_MOST:
        return text
    half = TEXT_AT_MOST // 2
    return f"{text[:half]}\n\n[… {len(text) - 2 * half:,} characters left out here …]\n\n{text[-half:]}"


def kind(row: Mapping[str, Any], scale: Scale) -> str:
    """The verdict in a word: right, partly right or wrong where scores count right answers, else ``graded``."""
    if row["error"]:
        return "error"
    if not scale.counts:
        return "graded"
    return "right" if row["score"] >= 1 else "wrong" if row["score"] <= 0 else "partly"
