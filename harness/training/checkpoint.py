"""Checkpoints: complete, sealed with a checksum, written atomically, and refused if they belong to another run.

There is one format for every launch: plain whole tensors, written by the first process and read by all. A run can
therefore resume on another number of processes, replicated or sharded, with the same result up to the rounding of
sums. Token counts and truncated responses are sums over all processes; the replay buffer, the method's state and the
learning curve are the same on each. Saved random states are the first process'. Texts and orders depend on (seed, step,
example) only, so only a model's own dropout differs on another number of processes.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy
import torch

from harness.errors import BadInput, RunFailed

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    from harness.method import Method
    from harness.training.distributed import Replicated
    from harness.training.optimizers import MasterWeights
    from harness.training.report import WeightReport
    from harness.training.rollouts import Rollouts
    from harness.training.self_teacher import MovingTeacher

FILE = "checkpoint.pt"


@dataclass
class TrainingParts:
    """The parts of a training that change with every step. A checkpoint keeps their state, with step, curve and cost.

    ``masters`` are float32 weights that the optimizer updates in place of the student's own; ``moving`` is a teacher
    that follows the student.
    """

    student: Replicated
    optimizer: Optimizer
    scheduler: LRScheduler
    masters: MasterWeights | None
    rollouts: Rollouts
    method: Method
    weights: WeightReport
    moving: MovingTeacher | None

    def state(self, keep: bool) -> dict[str, Any]:
        """What :meth:`load` reads. Gathering it is a collective, so every process takes part; those that ``keep`` it
        get the student's weights.
        """
        return self.student.state(self.optimizer, keep=keep) | {
            "scheduler": self.scheduler.state_dict(),
            "masters": self.masters.state() if self.masters else [],
            "rollouts": self.rollouts.state(),
            "method": self.method.state,
            "weights": self.weights.state(),
            "teacher": None if self.moving is None else self.moving.state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continues from a saved state."""
        self.student.load(state, self.optimizer)
        self.scheduler.load_state_dict(state["scheduler"])
        if self.masters:
            self.masters.load(state["masters"])
        self.rollouts.load_state(state["rollouts"])
        self.method.state = state["method"]
        self.weights.load(state.get("weights", {}))
        if self.moving is not None:
            self.moving.load(state["teacher"])


def save(folder: Path, training_id: str, state: dict[str, Any]) -> None:
    """Replaces the checkpoint of ``folder`` atomically: after a crash it is the old or the new one.

    Raises RunFailed when the disk refuses it; the old checkpoint stays and the half-written one is removed.
    """
    content = {"training_id": training_id, "random": _random_state(), **state}
    temporary = folder / f"{FILE}.writing"
    try:
        with temporary.open("wb") as stream:
            sealed = _Sealing(stream)
            torch.save(content, cast(BinaryIO, sealed))  # only write and flush are used
            stream.write(_SEAL + sealed.digest.hexdigest().encode())
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, folder / FILE)
    except (OSError, RuntimeError) as error:  # torch hides errors of its stream behind a RuntimeError
        temporary.unlink(missing_ok=True)
        reason = next((e.strerror for e in (error, error.__context__) if isinstance(e, OSError)), None)
        outcome = "the earlier checkpoint is kept" if (folder / FILE).is_file() else "there is none yet"
        reason = reason or f"the disk is full or unwritable: {str(error).splitlines()[0][:80]}"
        raise RunFailed(f"the checkpoint cannot be written to {folder} ({reason}); {outcome}") from None


def load(folder: Path, training_id: str) -> tuple[dict[str, Any] | None, str | None]:
    """The saved state, or None and a warning if it is damaged or of another run. Restores the random states."""
    path = folder / FILE
    if not path.is_file():
        return None, None
    try:
        if not _intact(path):
            return None, f"the checkpoint {path.name} is damaged (its seal differs); training starts again from step 0"
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        return None, f"the checkpoint {path.name} is damaged ({reason}); training starts again from step 0"
    if content.get("training_id") != training_id:
        return None, f"the checkpoint {path.name} belongs to another run; training starts again from step 0"
    _restore(content["random"])
    return content, None


def agree(folder: Path, state: dict[str, Any] | None, gather: Callable[[list[Any]], list[Any]]) -> None:
    """Raises BadInput, on every process, unless all of them read the same checkpoint, or none.

    Each process reads the folder itself; without a shared disk they would train from different steps, or hang.
    """
    steps = gather([None if state is None else state["step"]])
    if len(set(steps)) > 1:
        first, other = steps[0], next(i for i, step in enumerate(steps) if step != steps[0])
        findings = [
            f"process {i} of {len(steps)} finds {_step_in_words(step)}"
            for i, step in ((0, first), (other, steps[other]))
        ]
        raise BadInput(f"{' and '.join(findings)} in {folder}: all machines need the results folder on one shared disk")


def _step_in_words(step: int | None) -> str:
    return "no checkpoint" if step is None else f"the checkpoint of step {step}"


_SEAL = b"\nsha256:"  # then the hex digest of all bytes before: torch.load does not notice changed weights


class _Sealing:
    """A stream that hashes all bytes written to ``stream``."""

    def __init__(self, stream: BinaryIO):
        self.stream, self.digest = stream, hashlib.sha256()

    def write(self, content: Any) -> int:
        self.digest.update(content)
        return self.stream.write(content)

    def flush(self) -> None:
        self.stream.flush()


def _intact(path: Path) -> bool:
    """Whether the file ends with the digest of the bytes before it."""
    rest = path.stat().st_size - len(_SEAL) - 64
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while rest > 0 and (piece := stream.read(min(rest, 2**20))):
            digest.update(piece)
            rest -= len(piece)
        return stream.read() == _SEAL + digest.hexdigest().encode()


def _random_state() -> dict[str, Any]:
    version, numbers, gauss = random.getstate()
    kind, keys, place, has_gauss, cached = numpy.random.get_state(legacy=True)
    assert isinstance(keys, numpy.ndarray)
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
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])
