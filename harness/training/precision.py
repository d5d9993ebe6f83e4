"""The types of numbers that a training uses, as its recipe says; no torch is needed to know them.

``training.precision`` is the type of all forward passes: of the student and the teacher in training, of the texts that
either writes. Where the student's own weights are float32 (``training.master_weights=model``), its training passes cast
them as they go, and a copy in the other type samples (:mod:`harness.training.sampling_copy`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.errors import BadInput
from harness.models import devices
from harness.recipe import Evaluation, Recipe, Training


def check(chosen: Recipe, device: str, served: Sequence[str]) -> None:
    """Raises BadInput for a type that the device lacks, or that the harness cannot set: those of ``served`` models."""
    devices.check_type(chosen.training.precision, device, "training.precision")
    devices.check_type(sampling_type(chosen), device, "rollout.dtype")
    devices.check_type(chosen.evaluation.dtype, device, "evaluation.dtype")
    if served and chosen.evaluation.dtype != Evaluation.dtype:
        raise BadInput(
            f"evaluation.dtype={chosen.evaluation.dtype}: the server of {served[0]} decides the type of its weights; "
            "leave the setting out"
        )


def weights_type(plan: Training) -> str:
    """The type that the student's weights are loaded in."""
    return "float32" if plan.master_weights == "model" else "bfloat16"


def sampling_type(chosen: Recipe) -> str:
    """The type of the weights that sample from the student."""
    return chosen.rollout.dtype or chosen.training.precision


def in_spec(chosen: Recipe) -> dict[str, str]:
    """The entry of a specification whose student samples.

    None where the weights in training sample themselves, as they did in every run from before there was a copy.
    """
    sampled = sampling_type(chosen)
    return {} if sampled == weights_type(chosen.training) else {"sampled_in": sampled}


def of_spec(spec: Mapping[str, Any], chosen: Recipe) -> str | None:
    """``rollout.dtype`` with which the recipe samples as ``spec`` says; None where it does so already."""
    if not spec.get("training"):
        return None
    plan = replace(chosen.training, **{k: spec["training"].get(k, "model") for k in ("precision", "master_weights")})
    then = spec.get("sampled_in") or weights_type(plan)
    return None if then == (chosen.rollout.dtype or plan.precision) else then
