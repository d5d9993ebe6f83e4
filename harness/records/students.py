"""Trained students on disk: transformers folders with the facts of the training and digests of the files.

A folder is created and removed in one step, even if interrupted; a folder changed after training is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import atomic, safe_read
from harness.errors import BadInput, RunFailed

if TYPE_CHECKING:
    from harness.models.adapters import TrainedAdapter

FACTS = "training.json"
ADAPTER = "adapter"  # the folder of an adapter's own files, in peft's format
_KINDS = {"files": dict, "cost": dict, "warnings": list, "curve": list}  # what a run reads of the facts


def publish(
    model: Any, tokenizer: Any, facts: Mapping[str, Any], folder: Path, adapter: TrainedAdapter | None = None
) -> None:
    """Writes the trained student in one step: a transformers folder with ``training.json``.

    An adapter that was trained lies in a folder of its own below it; the weights of ``model`` have it merged.

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
        (temporary / FACTS).write_text(json.dumps({**facts, "files": files}), "utf-8")
        atomic.readable(temporary, temporary / FACTS)
        for file in (*written, temporary / FACTS):
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        remove(folder)
        os.replace(temporary, folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = getattr(error, "strerror", None) or error
        raise RunFailed(f"the trained student cannot be written to {folder} ({reason}); run again with room") from None


def remove(folder: Path) -> None:
    """Removes a folder in one step: after a crash it is complete or gone."""
    if folder.exists():
        gone = folder.with_name(f"{folder.name}.removed")
        shutil.rmtree(gone, ignore_errors=True)
        os.replace(folder, gone)
        shutil.rmtree(gone)


def is_there(folder: Path) -> bool:
    return (folder / FACTS).is_file()


def facts_of(folder: Path) -> dict[str, Any]:
    """The facts of a student's training. Raises BadInput if any of its files was changed."""
    fix = f"delete {folder}, the same command trains it again"
    try:
        facts = safe_read.value(safe_read.content(folder / FACTS, safe_read.LARGE, folder), finite=False)
        files = facts["files"]
        whole = all(isinstance(facts[key], kind) for key, kind in _KINDS.items())
    except (BadInput, KeyError, TypeError):
        whole = False
    if not whole:
        raise BadInput(f"{folder / FACTS} cannot be read; {fix}") from None
    for name, digest in files.items():
        if not (folder / name).is_file() or _digest(folder / name) != digest:
            raise BadInput(f"{folder / name} is missing or was changed after training; {fix}")
    return facts


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
