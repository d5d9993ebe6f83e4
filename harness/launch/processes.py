"""Processes of one ``accelerate launch``: the first decides, evaluates and writes; the others only train with it.

Followers wait for the first process to announce the next training. They never read the results folder to decide what
to do: files may change in between, and processes that disagree would wait for each other forever.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta

from harness.errors import BadInput

TIMEOUT = timedelta(days=30)  # followers wait through whole evaluations; the launcher detects dead processes
SHARDED = "ACCELERATE_USE_FSDP"  # set by accelerate's launcher for FSDP configurations
UNSUPPORTED = ("FSDP_OFFLOAD_PARAMS", "FSDP_CPU_RAM_EFFICIENT_LOADING", "FSDP_ACTIVATION_CHECKPOINTING")


def several() -> bool:
    """Whether this process is one of several that a launcher started."""
    return how_many() > 1


def how_many() -> int:
    """The processes of this launch, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def on_this_machine() -> int:
    """The processes of this launch on this machine; all of them where the launcher does not say."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", how_many()))


def leads() -> bool:
    """Whether this process evaluates and writes."""
    return int(os.environ.get("RANK", "0")) == 0


def sharded() -> bool:
    """Whether the launch shards the student over its processes. Raises BadInput for unsupported FSDP options."""
    if os.environ.get(SHARDED, "").lower() != "true":
        return False
    if (version := os.environ.get("FSDP_VERSION", "2")) != "2":
        raise BadInput(f"the launch requests FSDP {version}; set fsdp_version: 2 in its fsdp_config")
    for name in UNSUPPORTED:
        if os.environ.get(name, "").lower() == "true":
            raise BadInput(
                f"the launch requests {name.lower()}, which is not supported; set it to false in its fsdp_config"
            )
    return True


def join(device: str) -> None:
    """Connects the processes of a launch; does nothing for a single one. Raises BadInput for too few GPUs."""
    sharded()
    if several():
        from accelerate import PartialState

        _enough_devices(device)
        PartialState(cpu=device == "cpu", timeout=TIMEOUT)


def _enough_devices(device: str) -> None:
    """Raises BadInput unless every process of this machine has its own GPU."""
    import torch

    processes = on_this_machine()
    if device.startswith("cuda") and processes > (devices := torch.cuda.device_count()):
        raise BadInput(
            f"{processes} processes were started on a machine with {devices} GPU{'s' * (devices != 1)}; "
            f"every process needs its own: accelerate launch --num_processes {devices}, or harness run --device cpu"
        )


def tell(training_id: str | None) -> None:
    """Announces the next training to the followers; None ends them. Only the first process calls this."""
    if several():
        from accelerate.utils import broadcast_object_list

        broadcast_object_list([training_id])


def follow(train: Callable[[str], object]) -> None:
    """Calls ``train`` with the id of every training that the first process announces, until it announces the end."""
    from accelerate.utils import broadcast_object_list

    while (training_id := broadcast_object_list([None])[0]) is not None:
        train(training_id)
