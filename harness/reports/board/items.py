"""Two methods problem by problem: what ``compare.html`` knows, and the script files it reads.

A page opened from ``file://`` may not fetch, but it may add a ``<script>``; each row of the leaderboard is one such
file, read only when it is chosen.
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

TEXT_AT_MOST = 1500  # characters of a completion here; its run's page has it whole


def context(sections: Sequence[Section], diffs: Mapping[tuple[str, ...], str]) -> dict[str, Any]:
    """What the page knows before any file is read: the rows of every section and their files."""
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
    """The file of one row: for every problem its score at each seed, and the first seed's first completion."""
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
    """JSON that is safe between script tags and in a script file, whatever the strings hold."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _cut(text: str) -> str:
    return (
        text if len(text) <= TEXT_AT_MOST else f"{text[:TEXT_AT_MOST]}… ({len(text) - TEXT_AT_MOST:,} more characters)"
    )
