"""The folder ``work`` of a results folder: trained students, and notes on interrupted work.

    work/trained/<training id>/             a student in the transformers format, with training.json
    work/training/<training id>/spec.json   the specification, next to the checkpoint and removed with it
    work/begun/<run id>.json                training, task and protocol of a run, removed when the run is recorded

The names are hashes of the contents. A student's folder is created and removed atomically; a student
that changed after training is refused: its facts are sealed, and contain the digest of every file that a loader reads.
``--resume`` reads the notes to say how a command differs from the interrupted one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from harness import durable, safe_read
from harness.durable import write
from harness.errors import BadInput, RunFailed
from harness.records.record import misfit
from harness.records.store import Store

if TYPE_CHECKING:
    from harness.models.adapters import TrainedAdapter


FACTS = "training.json"
ADAPTER = "adapter"  # the folder of an adapter's own files, in peft's format
SEAL = "sha256"  # of the facts, in them
_READ = {".json", ".jinja", ".safetensors", ".bin", ".model", ".py"}  # suffixes of files that loaders read
_AMOUNT, _NUMBERS = {"type": "number", "minimum": 0}, {"type": "object", "additionalProperties": {"type": "number"}}
_COST = ("steps", "student_tokens", "teacher_forward_tokens", "generated_tokens", "seconds", "peak_memory_bytes")
FORM = {  # the facts that a run reads; older versions may lack those that are not required
    "type": "object",
    "required": ["files", "cost", "warnings", "curve"],
    "properties": {
        "files": {"type": "object", "required": ["config.json"], "additionalProperties": {"type": "string"}},
        "cost": {"type": "object", "required": _COST, "additionalProperties": _AMOUNT},
        "warnings": {"type": "array", "items": {"type": "string"}},
        "curve": {"type": "array", "items": _NUMBERS | {"required": ["on_policy", "buffer_age"]}},
        **{key: {"type": "object"} for key in ("spec", "signal", "weights", "told", "engine", "before")},
        SEAL: {"type": "string"},
    },
}


def publish(
    model: Any, tokenizer: Any, facts: Mapping[str, Any], folder: Path, adapter: TrainedAdapter | None = None
) -> None:
    """Writes the trained student atomically: a transformers folder with ``training.json``.

    A trained adapter has its own subfolder; the weights of ``model`` have it merged.

    Raises RunFailed when the disk refuses it; the checkpoint is kept.
    """
    from safetensors import SafetensorError
    from transformers.utils import logging

    logging.disable_progress_bar()
    temporary = folder.with_name(f"{folder.name}.writing")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        if adapter is not None:
            adapter.save(temporary / ADAPTER)
        written = sorted(file for file in temporary.rglob("*") if file.is_file())
        files = {file.relative_to(temporary).as_posix(): _digest(file) for file in written}
        content = {**facts, "files": files}
        (temporary / FACTS).write_text(json.dumps({**content, SEAL: _seal(content)}), "utf-8")
        durable.readable(temporary, temporary / FACTS)
        for file in (*written, temporary / FACTS):
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        remove(folder)
        os.replace(temporary, folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        in_the_way = folder.is_symlink() or any(p.exists() and not p.is_dir() for p in (folder, folder.parent))
        fix = "delete what is in the way and run again" if in_the_way else "free some space and run again"
        raise RunFailed(f"the trained student cannot be written to {folder} ({reason}); {fix}") from None


def student_folder(work: Path, training_id: str) -> Path:
    """Where the trained student of a training is kept."""
    return work / "trained" / training_id


def lock(work: Path, name: str | None) -> AbstractContextManager[Any]:
    """The lock for training a student or recording a run, against other commands on the same results folder.

    None needs no lock.
    """
    if name is None:
        return nullcontext()
    path = work / "locks" / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def remove(folder: Path) -> None:
    """Removes a folder atomically: after a crash it is complete or gone."""
    if folder.exists():
        gone = folder.with_name(f"{folder.name}.removed")
        shutil.rmtree(gone, ignore_errors=True)
        os.replace(folder, gone)
        shutil.rmtree(gone)


def is_there(folder: Path) -> bool:
    return (folder / FACTS).is_file()


def facts_of(folder: Path, spec: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The facts of a student's training by ``spec``. Raises BadInput if they or any of its files were changed."""
    fix = f"delete {folder} and repeat the command to train it again"
    try:
        facts = safe_read.value(safe_read.content(folder / FACTS, safe_read.LARGE, folder), finite=False)
    except BadInput:
        raise BadInput(f"{folder / FACTS} cannot be read; {fix}") from None
    if fault := misfit(facts, FORM):
        raise BadInput(f"{folder / FACTS} is not as a training writes it (it{fault[:200]}); {fix}")
    if facts.pop(SEAL, seal := _seal(facts)) != seal:
        raise BadInput(f"{folder / FACTS} was changed after training; {fix}")
    if spec is not None and facts.get("spec", spec) != json.loads(json.dumps(spec)):
        raise BadInput(f"{folder} holds the student of another training; {fix}")
    # Take the names of files from the folder, not from the facts: a loader reads all existing files.
    there = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*") if file.is_file()}
    for name, digest in facts["files"].items():
        if name not in there or _digest(there[name]) != digest:
            raise BadInput(f"{folder / name} is missing or was changed after training; {fix}")
    for name in sorted(there.keys() - facts["files"].keys() - {FACTS}):
        if there[name].suffix in _READ:
            raise BadInput(f"{there[name]} was added after training, and a model's loader may read it; {fix}")
    return facts


def _seal(facts: Mapping[str, Any]) -> str:
    """The digest of the facts as read back, without the seal itself."""
    content = {key: value for key, value in json.loads(json.dumps(facts)).items() if key != SEAL}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
    """Writes the planned measurement of a run. Raises OSError."""
    _put(_run(work, run_id), {"training_id": training_id, "spec": spec, "task": task, "protocol": protocol})


def forget_run(work: Path, run_id: str) -> None:
    """Removes the note of a recorded run, if there is one."""
    if (note := _run(work, run_id)).is_file():
        note.unlink(missing_ok=True)


def find_interrupted(name: str, results: Path) -> Interrupted:
    """The training or run with the id ``name``, interrupted or ended. Raises BadInput with the known ids."""
    work, store = results / "work", Store(results)
    if re.fullmatch(r"\w[\w.@+-]*", name):
        if (work / "training" / name).is_dir():
            return Interrupted(name, name, _object(work / "training" / name / SPEC))
        if is_there(student_folder(work, name)):
            facts = _object(student_folder(work, name) / FACTS)
            return Interrupted(name, name, _mapping((facts or {}).get("spec")))
        if _run(work, name).is_file():
            note = _object(_run(work, name)) or {}
            spec, protocol = (_mapping(note.get(key)) for key in ("spec", "protocol"))
            return Interrupted(name, str(note.get("training_id", "")), spec, str(note.get("task")), protocol or {})
        if store.holds(name):
            made = store.get(name)
            return Interrupted(name, made["training_id"], made["spec"], made["task"], made["protocol"])
    there = [p.name for p in (work / "training").glob("*")] + [p.stem for p in (work / "begun").glob("*.json")]
    if not there:
        raise BadInput(f"--resume {name}: nothing was interrupted in {results}; leave --resume out, or see --results")
    names = ", ".join(sorted(there)[:6]) + (f" and {len(there) - 6} more" if len(there) > 6 else "")
    raise BadInput(f"--resume {name}: {results} has no such id, but {names}")


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


def _mapping(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None
