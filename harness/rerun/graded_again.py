"""Grades the completions of published records again under the current version of a task, and records the result.

A new version of a task's grading gives new protocols, under which nothing is recorded although no text would
differ. If a published record has the training of a plan, and the same prompts, data and decoding as the plan
would use, its completions are graded by the current task; nothing is trained or generated. The new record says so.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import measured
from harness.evaluation import evaluate, measurement
from harness.records import curves
from harness.records.record import Record
from harness.records.store import Store
from harness.request import Plan
from harness.task import Task
from harness.types import Completion

# The fields that determine the completions.
ASKED = ("task", "metric", "dataset", "prompts_sha256", "template", "decoding")
SET_ANEW = ("schema_version", "created", "completions", "content_sha256")


def take(plan: Plan, folders: Sequence[Path], announce: Callable[[str], None]) -> None:
    """Records missing cells of the plan from published completions."""
    if not folders:
        return
    known: dict[tuple[str, str], list[tuple[Store, Record]]] = {}
    for folder in folders:
        store = Store(folder)
        for record in store.all()[0]:
            known.setdefault((record["training_id"], record["task"]), []).append((store, record))
    for training, task, existing in measurement.cells(plan):
        if existing is not None:
            continue
        chosen = measurement.of(plan, training, task)
        for store, record in known.get((training.training_id, task.title), []):
            if _asked_alike(record, chosen.protocol):
                attempt, supersedes = plan.store.next_attempt(chosen.identity)
                name = measured.run_id(training, task, chosen.identity, attempt)
                names = {"run_id": name, "attempt": attempt, "supersedes": supersedes, "identity": chosen.identity}
                new, rows = _graded(store, record, task)
                plan.store.add(new | names | {"protocol": chosen.protocol}, rows)
                curve = curves.read(store.root, training.training_id)
                curves.keep(plan.store.root, training.training_id, training.label, training.seed, curve)
                announce(f"{name}: completions of {record['run_id']}, graded again")
                break


def _asked_alike(record: Record, protocol: Mapping[str, Any]) -> bool:
    """Whether a record's completions match the protocol: the same questions and decoding."""
    now = json.loads(json.dumps(protocol))
    return all(record["protocol"].get(key) == now.get(key) for key in ASKED)


def _graded(store: Store, record: Record, task: Task) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The record with its score from the current grading, and the graded rows."""
    kept = store.completions(record)
    completions = [Completion.of(row) for row in kept]
    rows = evaluate.rows(completions, evaluate.verdicts_of(task, completions))
    score, figures = evaluate.score(task, rows), evaluate.figures(task, rows)
    changed = sum(a["score"] != b["score"] for a, b in zip(kept, rows, strict=True))
    message = f"graded again from the completions of {record['run_id']}: {changed} of {len(rows)} verdicts differ"
    new = {key: value for key, value in record.items() if key not in SET_ANEW}
    return new | {
        **score.as_json(),
        "measures": figures,
        "warnings": [*record["warnings"], message],
    }, rows
