"""Quantised teachers: weights that are quantised while they are loaded, and checkpoints that come quantised.

The work is that of bitsandbytes, torchao, gptqmodel and others, through transformers' own configurations. Here their
names become those configurations, and what is missing is said before any weight is read.
"""

from __future__ import annotations

import importlib.util
import json
import warnings
from typing import Any

from harness.errors import BadInput
from harness.models.files import ModelFiles

# The package of each way, and the bytes of a weight with the scales of its group (64 or 128 weights, or a row).
KINDS = {
    "bnb-4bit": ("bitsandbytes", 0.5 + 4 / 64),
    "bnb-8bit": ("bitsandbytes", 1.0),
    "torchao-int8": ("torchao", 1.0),
    "torchao-int4": ("torchao", 0.5 + 4 / 128),
}
EXTRA = "pip install 'reasoning-distillation-harness[quantization]'"


def bytes_of(kind: str) -> float:
    """Bytes of a weight."""
    return KINDS[kind][1]


def of_checkpoint(files: ModelFiles) -> str | None:
    """How the weights of a checkpoint are quantised (``gptq``, ``awq``, ``compressed-tensors``, …), or None."""
    try:
        config = json.loads((files.path / "config.json").read_text("utf-8"))
    except (OSError, ValueError):  # a model without such a file is judged where it is loaded
        return None
    found = config.get("quantization_config") if isinstance(config, dict) else None
    return str(found.get("quant_method", "unknown")) if isinstance(found, dict) else None


def check(files: ModelFiles, kind: str | None, device: str) -> None:
    """Raises BadInput where the teacher cannot be quantised so here, or its checkpoint cannot be read here."""
    own = of_checkpoint(files)
    if kind is not None and own is not None:
        raise BadInput(
            f"teacher.quantization={kind}: the weights of {files.id} are quantised already ({own}); leave it out"
        )
    if kind is not None:
        package, _ = KINDS[kind]
        if importlib.util.find_spec(package) is None:
            raise BadInput(f"teacher.quantization={kind} needs {package}, which is not installed: {EXTRA}")
        if kind == "torchao-int4" and not device.startswith("cuda"):
            raise BadInput(f"teacher.quantization={kind} runs on CUDA devices only; use torchao-int8 or bnb-4bit")
    if own is not None:
        _readable(files, own, device)


def refuse(student: ModelFiles) -> None:
    """Raises BadInput for a student whose weights are quantised: they cannot be trained, nor an adapter merged."""
    if own := of_checkpoint(student):
        raise BadInput(
            f"the weights of the student {student.id} are quantised ({own}) and cannot be trained here: name the model "
            "that they were made from"
        )


def _readable(files: ModelFiles, own: str, device: str) -> None:
    """Asks transformers whether it can read a quantised checkpoint here: packages, their versions, the device."""
    from transformers import AutoConfig
    from transformers.quantizers.auto import AutoHfQuantizer

    config = AutoConfig.from_pretrained(files.path, trust_remote_code=files.trusted).quantization_config
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantizer = AutoHfQuantizer.from_config(config, pre_quantized=True)
            quantizer.validate_environment(device_map={"": device}, weights_only=True)
    except (ImportError, RuntimeError, ValueError) as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise BadInput(f"the weights of {files.id} are quantised ({own}) and cannot be read here: {said}") from None


def config_of(kind: str, dtype: str) -> Any:
    """transformers' configuration; products are computed in ``dtype``. Embedding and output head stay whole."""
    import torch
    from transformers import BitsAndBytesConfig, TorchAoConfig

    if kind == "bnb-8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    if kind == "bnb-4bit":
        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, dtype)
        )
    from torchao.quantization import Int4WeightOnlyConfig, Int8WeightOnlyConfig

    return TorchAoConfig(Int8WeightOnlyConfig() if kind == "torchao-int8" else Int4WeightOnlyConfig())
