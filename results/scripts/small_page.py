"""Writes the tables of ``results/small/README.md`` from its records: ``python -m results.scripts.small_page``.

What stands outside the markers is written by hand.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from harness.leaderboard import equal_compute
from harness.leaderboard.formats import update_between_markers
from harness.leaderboard.text_tables import markdown_text
from harness.records import curves
from harness.records.record import method_label
from harness.records.store import Store

ROOT = Path("results/small")
TASKS = ("dolly", "self_instruct")


def rows(store: Store) -> Iterator[str]:
    """One row a method and number of steps: its scores, its cost, and how far it ends from the teacher."""
    groups: dict[tuple[str, int], list[Any]] = defaultdict(list)
    for record in store.all()[0]:
        training = record["spec"].get("training") or {}
        groups[method_label(record["method"]), training.get("steps", 0)].append(record)
    yield f"| method | steps | seeds | {' | '.join(TASKS)} | TFLOPs | held-out KL, nats | seconds |"
    yield "| --- | ---: | ---: |" + " ---: |" * (len(TASKS) + 3)
    lines = []
    for (label, steps), records in groups.items():
        scores = {t: [100 * r["score"] for r in records if r["task"] == t] for t in TASKS}
        trained = [r for r in records if r["task"] == TASKS[0]]
        kl = [curves.read(ROOT, r["training_id"])[-1]["held_out_kl"] for r in trained if steps]
        cells = [markdown_text(label), f"{steps or ''}", f"{len(trained)}"]
        cells += [f"{fmean(scores[t]):.1f} ({', '.join(f'{s:.1f}' for s in scores[t])})" for t in TASKS]
        cells += [f"{equal_compute.median_cost(trained) / 1e12:.0f}" if steps else ""]
        cells += [f"{fmean(kl):.2f}" if kl else ""]
        cells += [f"{fmean(r['cost']['seconds'] for r in trained):.0f}" if steps else ""]
        lines.append((fmean(scores[TASKS[0]]), f"| {' | '.join(cells)} |"))
    yield from (row for _, row in sorted(lines, reverse=True))


if __name__ == "__main__":
    update_between_markers(ROOT / "README.md", "\n".join(rows(Store(ROOT))) + "\n", "small")
