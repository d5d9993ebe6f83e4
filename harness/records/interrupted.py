"""Interrupted trainings and runs below ``work`` of a results folder, with what their commands requested.

    work/training/<training id>/spec.json   the specification, next to the checkpoint and removed with it
    work/begun/<run id>.json                training, task and protocol of a run, removed when the run is recorded

The names are hashes of the contents. ``--resume`` reads them to say how a command differs from the interrupted one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import safe_read
from harness.atomic import write
from harness.errors import BadInput
from harness.records import students
from harness.records.store import Store

SPEC = "spec.json"


@dataclass(frozen=True)
class Interrupted:
    """An interrupted training or run. ``spec`` is None if its file is missing or damaged.

    Only a run has ``task`` and ``protocol``.
    """

    id: str
    training_id: str
    spec: dict[str, Any] | None
    task: str | None = None
    protocol: dict[str, Any] | None = None


def note_training(scratch: Path, spec: Mapping[str, Any]) -> None:
    """Writes the specification of the training in ``scratch``, in one step. Raises OSError."""
    if not (scratch / SPEC).is_file():
        _put(scratch / SPEC, spec)


def note_run(work: Path, run_id: str, training_id: str, spec: Mapping[str, Any], task: str, protocol: Any) -> None:
    """Writes what a run will measure. Raises OSError."""
    _put(_run(work, run_id), {"training_id": training_id, "spec": spec, "task": task, "protocol": protocol})


def forget_run(work: Path, run_id: str) -> None:
    """Removes the note of a run that is recorded, if there is one."""
    if (note := _run(work, run_id)).is_file():
        note.unlink(missing_ok=True)


def find(wanted: str, results: Path) -> Interrupted:
    """The training or run with the id ``wanted``, interrupted or ended. Raises BadInput with the known ids."""
    work, store = results / "work", Store(results)
    if re.fullmatch(r"\w[\w.@+-]*", wanted):
        if (work / "training" / wanted).is_dir():
            return Interrupted(wanted, wanted, _object(work / "training" / wanted / SPEC))
        if students.is_there(work / "trained" / wanted):
            facts = _object(work / "trained" / wanted / students.FACTS)
            return Interrupted(wanted, wanted, facts.get("spec") if facts else None)
        if _run(work, wanted).is_file():
            note = _object(_run(work, wanted)) or {}
            return Interrupted(
                wanted, note.get("training_id", ""), *(note.get(k) for k in ("spec", "task", "protocol"))
            )
        if store.holds(wanted):
            made = store.get(wanted)
            return Interrupted(wanted, made["training_id"], made["spec"], made["task"], made["protocol"])
    there = [p.name for p in (work / "training").glob("*")] + [p.stem for p in (work / "begun").glob("*.json")]
    if not there:
        raise BadInput(f"--resume {wanted}: nothing was interrupted in {results}; leave --resume out, or see --results")
    names = ", ".join(sorted(there)[:6]) + (f" and {len(there) - 6} more" if len(there) > 6 else "")
    raise BadInput(f"--resume {wanted}: there is none of that id in {results}, but {names}")


def _run(work: Path, run_id: str) -> Path:
    return work / "begun" / f"{run_id}.json"


def _put(path: Path, content: Mapping[str, Any]) -> None:
    write(path, json.dumps(content, indent=1).encode())


def _object(path: Path) -> dict[str, Any] | None:
    """The content of a file, None if it cannot be read."""
    try:
        content = safe_read.value(safe_read.content(path, safe_read.RECORD), finite=False)
    except BadInput:
        return None
    return content if isinstance(content, dict) else None
