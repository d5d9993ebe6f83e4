"""The state of a training run on disk: complete, written atomically, refused when it belongs to another run."""

from __future__ import annotations

import os
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy
import torch

FILE = "checkpoint.pt"


def save(folder: Path, training_id: str, state: dict[str, Any]) -> None:
    """Replaces the checkpoint of ``folder`` in one step; a crash leaves the old or the new one, whole."""
    content = {"training_id": training_id, "random": _random_state(), **state}
    temporary = folder / f"{FILE}.writing"
    with temporary.open("wb") as stream:
        torch.save(content, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, folder / FILE)


def load(folder: Path, training_id: str) -> tuple[dict[str, Any] | None, str | None]:
    """The state, or None and a warning when there is none that can be trusted. Restores random numbers."""
    path = folder / FILE
    if not path.is_file():
        return None, None
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, zipfile.BadZipFile) as error:
        reason = str(error).splitlines()[0][:120]
        return None, f"the checkpoint {path.name} is damaged ({reason}); training starts again from step 0"
    if content.get("training_id") != training_id:
        return None, f"the checkpoint {path.name} belongs to another run; training starts again from step 0"
    _restore(content["random"])
    return content, None


def _random_state() -> dict[str, Any]:
    version, numbers, gauss = random.getstate()
    kind, keys, place, has_gauss, cached = numpy.random.get_state()
    state = {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, torch.from_numpy(keys.copy()), place, has_gauss, cached],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def _restore(state: dict[str, Any]) -> None:
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, place, has_gauss, cached = state["numpy"]
    numpy.random.set_state((kind, keys.numpy(), place, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
