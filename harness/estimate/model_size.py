"""Counts the parameters of a model from its safetensors headers, without loading it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

from harness.errors import BadInput
from harness.estimate.shapes import Shape
from harness.models import quantization, sources
from harness.models.files import ModelFiles


class Unknown(BadInput):
    """The configuration names its sizes differently: the model may run, but cannot be estimated."""


def parameters(model: ModelFiles) -> int | None:
    """The number of parameters; None where the files are neither safetensors nor GGUF.

    Files with quantised weights hold several weights in one number, so these are counted by the configuration.
    Raises BadInput for a damaged file.
    """
    if model.gguf is not None:
        return sources.gguf_parameters(model.gguf)
    if quantization.of_checkpoint(model):
        return shape_of(model).parameters
    files = sorted(model.path.glob("*.safetensors"))
    return sum(_count(model, file) for file in files) if files else None


def shape_of(model: ModelFiles) -> Shape:
    """The shape in a model's configuration, its parameters counted in its files where they are safetensors.

    Raises Unknown for a configuration without a size, BadInput for a damaged file.
    """
    config = json.loads((model.path / "config.json").read_text("utf-8"))
    try:
        shape = Shape.of(config)
    except KeyError as missing:
        raise Unknown(f"the configuration of {model.id} has no {missing}; its memory cannot be estimated") from None
    return shape if quantization.of_checkpoint(model) else replace(shape, counted=parameters(model))


def bytes_per_weight(model: ModelFiles) -> float | None:
    """Of the layers of a checkpoint that comes quantised, from the size of its files; None for any other."""
    if model.url is not None or not quantization.of_checkpoint(model):
        return None
    shape = shape_of(model)
    ends = shape.vocab * shape.hidden * (1 if shape.tied else 2)  # not quantised: 2 bytes each, as such files have them
    size = sum(file.stat().st_size for pattern in ("*.safetensors", "*.bin") for file in model.path.glob(pattern))
    return max(size - 2 * ends, 0) / max(shape.parameters - ends, 1)


def _count(model: ModelFiles, file: Path) -> int:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as stream:
            return sum(math.prod(stream.get_slice(name).get_shape()) for name in stream.keys())  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{model.id} cannot be loaded: {file.name} is damaged ({error}); fetch it again") from None
