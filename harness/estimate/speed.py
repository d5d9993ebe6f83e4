"""How fast a training and an evaluation ran: tokens a second, and the share of the device's peak where that is known.

Written into every record, beside its cost, and part of no identity: the same run on another machine has another speed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness.estimate.resources import DEVICES
from harness.estimate.shapes import token_flops


def of(
    cost: Mapping[str, Any],
    parameters: Mapping[str, int | None],
    precision: str | None,
    device: str,
    processes: int = 1,
) -> dict[str, float]:
    """``cost`` as the record has it, ``precision`` of the training (None where nothing trained), ``device`` by name.

    ``training_tokens_per_second`` are tokens through the student and those that were sampled, over the wall-clock
    seconds of the training and over all ``processes``; ``share_of_peak`` are its operations, counted from parameters
    and tokens, over those that the devices of all processes could do in that time.
    """
    found = {}
    if cost["seconds"] > 0 and (tokens := cost["student_tokens"] + cost["generated_tokens"]):
        found["training_tokens_per_second"] = tokens / cost["seconds"]
        student, teacher = parameters["student"], parameters["teacher"]
        taught, peak = cost["teacher_forward_tokens"], _peak(device, precision)
        if peak is not None and student is not None and (teacher is not None or not taught):
            own = cost["student_tokens"], taught, cost["generated_tokens"], cost.get("reference_forward_tokens", 0)
            spent = token_flops(student, teacher or 0, *own)
            found["share_of_peak"] = spent / cost["seconds"] / peak / processes
    if cost["eval_seconds"] > 0 and cost["eval_generated_tokens"]:
        found["evaluation_tokens_per_second"] = cost["eval_generated_tokens"] / cost["eval_seconds"]
    return found


def _peak(device: str, precision: str | None) -> float | None:
    """Operations a second of a GPU whose data sheet is known; no sheet says what a CPU's units do in one type."""
    own = device.replace(" ", "")
    found = next((d for name, d in DEVICES.items() if "GB" in name and name.partition("-")[0] in own), None)
    return None if found is None or precision is None else found.peak(precision)


def name_of(device: str) -> str:
    """The device as its maker calls it, for a device by torch's name; a CPU has none."""
    if not device.startswith("cuda"):
        return device
    import torch

    return torch.cuda.get_device_name(torch.device(device))
