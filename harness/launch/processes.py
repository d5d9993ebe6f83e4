"""Several processes of one ``accelerate launch``: the first decides, evaluates and writes; the others train with it.

Followers wait to be told the next training. They never look at the results folder on their own, so that all
processes agree on what is to be done whatever the files say meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from harness.errors import BadInput

if TYPE_CHECKING:
    from harness.plan import TrainingRun

PATIENCE = timedelta(days=30)  # followers wait through whole evaluations; a dead process is the launcher's to see
SHARDED = "ACCELERATE_USE_FSDP"  # set by accelerate's launcher, from a configuration that says FSDP
NOT_DONE = ("FSDP_OFFLOAD_PARAMS", "FSDP_CPU_RAM_EFFICIENT_LOADING", "FSDP_ACTIVATION_CHECKPOINTING")


def several() -> bool:
    """Whether this process is one of several that a launcher started."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def leads() -> bool:
    """Whether this process evaluates and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def sharded() -> bool:
    """Whether the launch wants the student cut over its processes. Raises BadInput for what is not done here."""
    if os.environ.get(SHARDED, "").lower() != "true":
        return False
    if (version := os.environ.get("FSDP_VERSION", "2")) != "2":
        raise BadInput(f"the launch asks for FSDP {version}; say fsdp_version: 2 in its fsdp_config")
    for name in NOT_DONE:
        if os.environ.get(name, "").lower() == "true":
            raise BadInput(f"the launch asks for {name.lower()}, which is not done here; say false in its fsdp_config")
    return True


def join(device: str) -> None:
    """Connects the processes of a launch; nothing where there is one. Raises BadInput where they cannot work."""
    sharded()
    if several():
        from accelerate import PartialState

        _enough_devices(device)
        PartialState(cpu=device == "cpu", timeout=PATIENCE)


def _enough_devices(device: str) -> None:
    """Every process of a machine takes a GPU of its own."""
    import torch

    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if device.startswith("cuda") and here > (there := torch.cuda.device_count()):
        raise BadInput(
            f"{here} processes were started on a machine with {there} GPU{'s' * (there != 1)}; every process needs its "
            f"own: accelerate launch --num_processes {there}, or harness run --device cpu"
        )


def tell(training_id: str | None) -> None:
    """Says to the followers what is trained next; None sends them home. Only the first process calls this."""
    if several():
        from accelerate.utils import broadcast_object_list

        broadcast_object_list([training_id])


def follow(trainings: Sequence[TrainingRun], train: Callable[[TrainingRun], object]) -> None:
    """Trains what the first process says, until it sends this one home."""
    from accelerate.utils import broadcast_object_list

    known = {training.training_id: training for training in trainings}
    while (told := broadcast_object_list([None])[0]) is not None:
        train(known[told])
