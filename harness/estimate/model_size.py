"""Counts the parameters of a model from its safetensors headers, without loading it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

from harness.errors import BadInput
from harness.estimate.shapes import Shape
from harness.models import sources
from harness.models.files import ModelFiles


class Unknown(BadInput):
    """The configuration names its sizes differently: the model may run, but cannot be estimated."""


def parameters(model: ModelFiles) -> int | None:
    """The number of parameters; None where the files are neither safetensors nor GGUF.

    Raises BadInput for a damaged file.
    """
    if model.gguf is not None:
        return sources.gguf_parameters(model.gguf)
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
    return replace(shape, counted=parameters(model))


def _count(model: ModelFiles, file: Path) -> int:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as stream:
            return sum(math.prod(stream.get_slice(name).get_shape()) for name in stream.keys())  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise BadInput(f"{model.id} cannot be loaded: {file.name} is damaged ({error}); fetch it again") from None
