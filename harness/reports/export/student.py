"""Exports a trained student as a folder: weights, tokenizer, training.json, and a new model card."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from harness import durable, model_card
from harness.errors import BadInput, RunFailed
from harness.records.record import roles_of
from harness.records.store import Store
from harness.records.work_folder import ADAPTER, FACTS, student_folder

MERGED = "merged"
# Files that an adapter's folder does not need: weights and configuration of the whole model.
WHOLE_MODEL = ("*.safetensors", "*.bin", "*.index.json", "config.json", "generation_config.json")


def export(store: Store, name: str, out: Path, weights: str = MERGED, licence: str | None = None) -> Path:
    """Copies the student of the record ``name`` to ``out`` atomically.

    ``weights``: those of the whole model, an adapter merged in, or the adapter's alone with tokenizer and card.
    ``licence`` is for the card, see :func:`harness.model_card.refresh`.

    Raises BadInput when the record was never trained, its student is no longer kept, or ``out`` is not empty.
    """
    record = store.get(name)
    if roles_of(record).reference:
        raise BadInput(f"{record['run_id']} measures a model that was not trained; there is no student to export")
    folder = student_folder(store.root / "work", record["training_id"])
    if not (folder / FACTS).is_file():
        raise BadInput(
            f"the student of {record['run_id']} is no longer at {folder}; repeat its harness run with --again to "
            "train it again"
        )
    if weights == ADAPTER and not (folder / ADAPTER).is_dir():
        raise BadInput(
            f"--weights {ADAPTER}: all weights of the student of {record['run_id']} were trained; leave it out, or "
            "train one with --set student.adapter=lora"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise BadInput(f"--out {out} is not an empty folder; name a new one")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
            copy = Path(scratch) / "student"
            if weights == ADAPTER:
                shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(*WHOLE_MODEL, ADAPTER))
                shutil.copytree(folder / ADAPTER, copy, dirs_exist_ok=True)
            else:
                shutil.copytree(folder, copy, ignore=shutil.ignore_patterns(ADAPTER))
            model_card.refresh(copy, store, record, licence)
            durable.readable(copy, copy / model_card.CARD)
            if out.is_dir():
                out.rmdir()
            os.replace(copy, out)
    except OSError as error:
        raise RunFailed(f"the student could not be written to {out} ({error.strerror or error})") from None
    return out
