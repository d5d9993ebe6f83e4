"""Two methods problem by problem: the data in ``compare.html``, and the script files that it loads.

A page opened from ``file://`` may not fetch, but it may add a ``<script>``. Each row of the leaderboard is one script
file, loaded when a reader selects the row.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.leaderboard.inference import problem_scores
from harness.leaderboard.rows import Section
from harness.leaderboard.text_tables import RECONSTRUCTED
from harness.records.record import Record

TEXT_AT_MOST = 1500  # characters of a completion; the page of its run has all of it


def context(sections: Sequence[Section], diffs: Mapping[tuple[str, ...], str]) -> dict[str, Any]:
    """The data in the page itself: the rows of every section and the names of their files."""
    tables = []
    for section in sections:
        rows = [
            {"label": row.label + (RECONSTRUCTED if row.reconstruction else ""), "name": row.method,
             "seeds": list(row.seeds), "file": diffs[row.run_ids], "reference": row.reference}
            for row in section.rows if row.run_ids in diffs
        ]  # fmt: skip
        if len(rows) > 1:
            tables.append(
                {"title": section.title, "task": section.task, "protocol": section.protocol, "rows": rows,
                 "scale": section.scale.card() | {"points": section.scale.points, "counts": section.scale.counts}}
            )  # fmt: skip
    notes = list(dict.fromkeys(n for s in sections for n in s.notes if n.startswith(RECONSTRUCTED)))
    return {"tables": tables, "notes": notes, "title": "Problem by problem", "here": "compare"}


def write(path: Path, records: Sequence[Record], completions: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """Writes the file of one row: each problem's score at every seed, and the first completion of the first seed."""
    scores = [problem_scores(rows, record) for rows, record in zip(completions, records, strict=True)]
    first: dict[str, Mapping[str, Any]] = {}
    for one in completions[0]:
        first.setdefault(one["problem_id"], one)
    found = {
        problem: {
            "scores": [seed.get(problem) for seed in scores],
            "text": _cut(one["text"]),
            "reason": one["reason"],
            "extracted": one["extracted"],
            "finish": one["finish"],
        }
        for problem, one in first.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"boardData({script_json(path.name)},{script_json(found)});\n", "ascii")


def script_json(value: Any) -> str:
    """JSON that is safe between script tags and in a script file, for any strings."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _cut(text: str) -> str:
    return (
        text if len(text) <= TEXT_AT_MOST else f"{text[:TEXT_AT_MOST]}… ({len(text) - TEXT_AT_MOST:,} more characters)"
    )
