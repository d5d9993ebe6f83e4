"""Devices: names, checked before any work; transfers; the memory that a process keeps; types of numbers.

``training.precision`` is the type of all forward passes: of student and teacher in training, and of the texts that
either writes. If the student's weights are float32 (``training.master_weights=model``), its training passes cast
them on the fly, and a copy in the other type samples (:mod:`harness.training.distributed`).
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput
from harness.recipe import Evaluation, Recipe, Training

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def best() -> str:
    """The device of a run that names none."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def moved(values: Tensor, device: torch.device | str) -> Tensor:
    """A tensor of the host on ``device``. The host does not wait for a GPU: the copy is from pinned memory."""
    if not str(device).startswith("cuda"):
        return values.to(device)
    return values.pin_memory().to(device, non_blocking=True)  # torch keeps pinned memory until the copy is done


def copied(values: Tensor, into: Tensor) -> None:
    """Writes a tensor of the host into an existing one on a device. The host does not wait for a GPU."""
    into.copy_(values.pin_memory() if into.device.type == "cuda" else values, non_blocking=True)


def padding_mask(mask: Tensor) -> Tensor | None:
    """The attention mask for a batch [B, L] padded on the right: on a GPU none.

    No token attends to a later one, so the padding changes no other token. A mask rules out the flash kernel of
    attention and is inspected on the host. On a CPU it selects the kernel that published runs used.
    """
    return mask if mask.device.type == "cpu" else None


def check(name: str, where: str, here: bool = True) -> str:
    """``name``, as the setting ``where`` has it. Raises BadInput for a device that this machine does not have.

    ``here`` is False for a plan that is only printed, which may be for another machine.
    """
    import torch

    kind, colon, number = name.partition(":")
    if kind not in {"cpu", "cuda", "mps"} or (colon and not (kind == "cuda" and number.isdecimal())):
        raise BadInput(f"{where} {name!r} is not cpu, cuda, cuda:N or mps")
    if not here:
        return name
    if kind == "cuda" and not torch.cuda.is_available():
        raise BadInput(f"{where} {name}: no CUDA device is visible here; use {where} cpu")
    if kind == "cuda" and colon and int(number) >= (count := torch.cuda.device_count()):
        last = f"cuda:{count - 1}" if count > 1 else "cuda:0 alone"
        raise BadInput(f"{where} {name}: {count} CUDA devices are visible here, up to {last}")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise BadInput(f"{where} {name}: no Apple GPU is visible here; use {where} cpu")
    return name


def check_type(dtype: str, name: str, where: str) -> None:
    """Raises BadInput where the device ``name`` cannot compute in ``dtype``, which the setting ``where`` asks for."""
    import torch

    if dtype != "bfloat16" or not name.startswith("cuda") or not torch.cuda.is_available():
        return
    if not torch.cuda.is_bf16_supported(including_emulation=False):
        raise BadInput(f"{where}=bfloat16: {torch.cuda.get_device_name(name)} has no bfloat16; set {where}=float32")


# glibc returns every large block to the kernel when it is freed, and gets it back page by page, zeroed. A training
# step on a CPU frees and allocates gradients, copies of weights and logits of hundreds of megabytes: allocating 113 MB
# costs 50 ms, a pass over it 13 ms. Keeping freed memory changes no result; the process just stays at its largest size.
# Of mallopt: how many blocks are mapped separately; when the end of the heap is returned.
MMAP_MAX, TRIM_THRESHOLD = -4, -1
CHOSEN = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")  # set by users who configure the allocator, or use another one


def keep_freed() -> bool:
    """Keeps freed memory, if the allocator is glibc's and the user has not configured it; returns whether it does."""
    if sys.platform != "linux" or any(name.startswith(CHOSEN) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return mallopt(MMAP_MAX, 0) == 1 and mallopt(TRIM_THRESHOLD, -1) == 1


def check_precision(chosen: Recipe, device: str, served: Sequence[str]) -> None:
    """Raises BadInput for a type that the device lacks, or that the harness cannot set for ``served`` models."""
    check_type(chosen.training.precision, device, "training.precision")
    check_type(sampling_type(chosen), device, "rollout.dtype")
    check_type(chosen.evaluation.dtype, device, "evaluation.dtype")
    if served and chosen.evaluation.dtype != Evaluation.dtype:
        raise BadInput(
            f"evaluation.dtype={chosen.evaluation.dtype}: the server of {served[0]} decides the type of its weights; "
            "leave the setting out"
        )


def weights_type(training: Training) -> str:
    """The type that the student's weights are loaded in."""
    return "float32" if training.master_weights == "model" else "bfloat16"


def sampling_type(chosen: Recipe) -> str:
    """The type of the weights that sample from the student."""
    return chosen.rollout.dtype or chosen.training.precision


def precision_in_spec(chosen: Recipe) -> dict[str, str]:
    """The entry of a specification whose student samples.

    Empty if the weights in training sample themselves, as in all runs before copies existed.
    """
    sampled = sampling_type(chosen)
    return {} if sampled == weights_type(chosen.training) else {"sampled_in": sampled}


def precision_of_spec(spec: Mapping[str, Any], chosen: Recipe) -> str | None:
    """The ``rollout.dtype`` that makes the recipe sample as in ``spec``; None if it already does."""
    if not spec.get("training"):
        return None
    training = replace(
        chosen.training, **{k: spec["training"].get(k, "model") for k in ("precision", "master_weights")}
    )
    then = spec.get("sampled_in") or weights_type(training)
    return None if then == (chosen.rollout.dtype or training.precision) else then
