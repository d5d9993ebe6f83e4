"""Where the host asks tensors for their values at every step of a training: all stand in results/bench/waits.md.

On a GPU each waits until all work before it is done. Found by what torch is asked to do: on a CPU it is the same.
"""

import math
import sys
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from tiny_runs import make, method, pair, quiet
from torch.utils._python_dispatch import TorchDispatchMode

from harness.errors import BadInput, RunFailed
from harness.training.loop import train

ROOT = Path(__file__).parents[1]
OURS = tuple(str(ROOT / folder) for folder in ("harness", "methods"))
# What is done only after a value is known; so is an index by a mask.
ASKING = {"_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "bincount", "equal", "unique_consecutive"}
# These ask tensors that a GPU run has on the host, or ask on a CPU alone.
ON_THE_HOST = {
    "harness/models/sampling.py::uniforms": "random numbers are drawn on the host",
    "harness/training/batching.py::collate": "a batch is made on the host",
    "harness/training/objective.py::Student._hidden": "transformers looks at a mask, and a GPU is given none",
    "harness/training/signals.py::LiveTeacher._states": "the same",
    "harness/training/loop.py::train _local_scalar_dense": "the optimizer's count of steps; on a GPU it is fused",
    "harness/losses.py::_in_unit_interval": "settings are known on the host",
    "methods/_rewards.py::advantages": "rewards are known on the host",
}


def place() -> str | None:
    """The function of ours that is at work."""
    frame = sys._getframe(2)
    while frame is not None and not frame.f_code.co_filename.startswith(OURS):
        frame = frame.f_back
    return frame and f"{Path(frame.f_code.co_filename).relative_to(ROOT)}::{frame.f_code.co_qualname}"


class Asked(TorchDispatchMode):
    """Notes who asks, from the second step on."""

    def __init__(self, monkeypatch):
        super().__init__()
        self.places, self.begun, self.seen = set(), False, 0
        for name in ("tolist", "cpu", "numpy"):
            monkeypatch.setattr(torch.Tensor, name, self.watched(name, getattr(torch.Tensor, name)))

    def watched(self, name, plain):
        def ask(tensor, *args, **kwargs):
            self.note(place(), name)
            return plain(tensor, *args, **kwargs)

        return ask

    def note(self, where, what):
        if self.begun and where:
            self.places.add(f"{where} {what}")

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.overloadpacket.__name__
        by_mask = name.startswith("index") and isinstance(args[1], list | tuple)
        by_mask = by_mask and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in ASKING or by_mask:
            self.note(place(), name)
        return operation(*args, **(kwargs or {}))

    def progress(self, stage, done, total, details):
        if stage == "train":
            self.seen, self.begun = max(self.seen, done), 1 <= done < total


@pytest.mark.slow
@pytest.mark.parametrize("label", ["gkd", "vcrd", "minillm", "grpo", "gold", "sdpo"])
def test_every_place_that_waits_for_a_device_is_known(label, tmp_path, prompts_file, monkeypatch):
    table = (ROOT / "results/bench/waits.md").read_text("utf-8")
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    models, asked = pair(tmp_path / "models"), Asked(monkeypatch)
    AcceleratorState._reset_state(True)
    with asked:
        train(make(label, models, prompts_file, tmp_path, steps=3), asked.progress)
    assert asked.seen == 3 and any("_normalise" in where for where in asked.places)
    host = {where for where in asked.places if where in ON_THE_HOST or where.partition(" ")[0] in ON_THE_HOST}
    unknown = set()
    for where in asked.places - host:
        file, _, function = where.partition(" ")[0].removeprefix("harness/").partition("::")
        names = [part for part in function.split(".") if part[0] != "<"]
        unknown |= set() if any(f"`{file}" in row and names[-1] in row for row in rows) else {where}
    assert not unknown


@pytest.mark.parametrize(("value", "said"), [(-1.0, "weight of -1"), (math.inf, "infinite weight"), (math.nan, "nan")])
@pytest.mark.parametrize("shuffle", [False, True])
def test_a_weight_that_is_none_is_named_though_a_batch_is_looked_at_once(
    models, prompts_file, tmp_path, value, said, shuffle
):
    asked = method("vcrd", {"shuffle": shuffle})

    def weight(tokens):
        found = torch.ones(len(tokens.labels))
        found[0] = value if tokens.step.index else 1.0
        return found

    asked.weight = weight
    AcceleratorState._reset_state(True)
    with pytest.raises((BadInput, RunFailed), match=f"weight of method vcrd gave an? {said}|gave a weight of {said}"):
        train(make(asked, models, prompts_file, tmp_path, micro_batch=2), quiet)
