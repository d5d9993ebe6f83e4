"""How a teacher is loaded: the type of its weights, its device, quantised weights.

Weights are quantised on loading, or the checkpoint is already quantised. The work is done by bitsandbytes,
torchao, gptqmodel and others, through transformers' configurations; a missing package is reported before any weight
is read.

Type and quantisation change the teacher's distribution, so they are part of the specification of a training if
set. The device only moves its arithmetic, like ``--device``, and is shown only on the convention card.
"""

from __future__ import annotations

import importlib.util
import json
import warnings
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput, install
from harness.models import devices, engine_choice
from harness.models.engine_choice import EngineChoice
from harness.models.files import ModelFiles, declared, load_model
from harness.recipe import Recipe, TeacherLoading

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# The size of a context, by the names that configurations give it.
CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length")


def check(files: ModelFiles, chosen: Recipe, device: str) -> None:
    """Raises BadInput if the teacher cannot be loaded as the recipe says, before any weight is read."""
    own = chosen.teacher
    if own.quantization is not None and engine_of(own) is not None:
        raise BadInput(
            f"teacher.quantization={own.quantization}: the engine loads the teacher itself; give it a "
            "checkpoint that comes quantised"
        )
    if own.device is not None:
        devices.check(own.device, "teacher.device")
    if own.quantization is not None and (files.gguf is not None or files.adapter is not None):
        what = "a GGUF file, which is dequantised" if files.gguf else "an adapter, which is merged"
        raise BadInput(
            f"teacher.quantization={own.quantization}: {files.id} is {what} when it is loaded; leave the setting "
            "out, or save the whole model first"
        )
    if files.url is None:
        check_quantization(files, own.quantization, own.device or device)


def dtype_of(chosen: TeacherLoading, otherwise: str) -> str:
    return chosen.dtype or otherwise


def load(files: ModelFiles, chosen: TeacherLoading, dtype: str, device: str) -> PreTrainedModel:
    """The teacher as ``chosen`` says; ``dtype`` and ``device`` are those of the run. Raises BadInput."""
    dtype = dtype_of(chosen, dtype)
    quantized = quantization_config(chosen.quantization, dtype) if chosen.quantization else None
    return load_model(files, dtype, chosen.device or device, quantized)


def in_spec(chosen: TeacherLoading) -> dict[str, dict[str, str]]:
    """The entry of a specification; none if nothing is set, which keeps the hashes of other trainings."""
    own = {key: value for key in ("dtype", "quantization") if (value := getattr(chosen, key)) is not None}
    if (engine := engine_of(chosen)) is not None:
        own["engine"] = engine.word
    return {"teacher_loading": own} if own else {}


def engine_of(chosen: TeacherLoading) -> EngineChoice | None:
    """The engine of the teacher, None for this process. Raises BadInput for an unknown engine."""
    return engine_choice.chosen(chosen.engine or engine_choice.IN_PROCESS, "teacher.engine")


def suffix(chosen: TeacherLoading) -> str:
    """The part of a key of cached texts besides the teacher's hash; empty if nothing is set."""
    own: dict[str, Any] = in_spec(chosen).get("teacher_loading", {})
    return "".join(f"+{key}={value}" for key, value in own.items())


def in_words(chosen: TeacherLoading) -> str:
    """The settings in words, for the convention card; empty if none is set."""
    where = f"on {chosen.device}" if chosen.device else None
    engine = engine_of(chosen)
    behind = f"behind {engine.word}" if engine is not None else None
    return ", ".join(part for part in (chosen.dtype, chosen.quantization, where, behind) if part)


# The package of each way, and the bytes of a weight with the scales of its group (64 or 128 weights, or a row).
QUANTIZATIONS = {
    "bnb-4bit": ("bitsandbytes", 0.5 + 4 / 64),
    "bnb-8bit": ("bitsandbytes", 1.0),
    "torchao-int8": ("torchao", 1.0),
    "torchao-int4": ("torchao", 0.5 + 4 / 128),
}


def bytes_of(kind: str) -> float:
    """Bytes of a weight."""
    return QUANTIZATIONS[kind][1]


def context_of(files: ModelFiles) -> int | None:
    """The tokens that fit a model, from its configuration; None where that says nothing or the model is served."""
    if files.url is not None:
        return None
    return next((size for name in CONTEXT for size in declared(files, name) if size > 0), None)


def quantization_of(files: ModelFiles) -> str | None:
    """How the weights of a checkpoint are quantised (``gptq``, ``awq``, ``compressed-tensors``, …), or None."""
    try:
        config = json.loads((files.path / "config.json").read_text("utf-8"))
    except (OSError, ValueError):  # a model without such a file is checked when it is loaded
        return None
    settings = config.get("quantization_config") if isinstance(config, dict) else None
    return str(settings.get("quant_method", "unknown")) if isinstance(settings, dict) else None


def check_quantization(files: ModelFiles, kind: str | None, device: str) -> None:
    """Raises BadInput if this machine cannot quantise the teacher this way, or cannot read its checkpoint."""
    own = quantization_of(files)
    if kind is not None and own is not None:
        raise BadInput(
            f"teacher.quantization={kind}: the weights of {files.id} are quantised already ({own}); leave it out"
        )
    if kind is not None:
        package, _ = QUANTIZATIONS[kind]
        if importlib.util.find_spec(package) is None:
            fix = install("quantization")
            raise BadInput(f"teacher.quantization={kind} needs {package}, which is not installed: {fix}")
        if kind == "torchao-int4" and not device.startswith("cuda"):
            raise BadInput(f"teacher.quantization={kind} runs on CUDA devices only; use torchao-int8 or bnb-4bit")
    if own is not None:
        _readable(files, own, device)


def refuse_quantized(student: ModelFiles) -> None:
    """Raises BadInput for a student whose weights are quantised: they cannot be trained, nor an adapter merged."""
    if own := quantization_of(student):
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
        message = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise BadInput(f"the weights of {files.id} are quantised ({own}) and cannot be read here: {message}") from None


def quantization_config(kind: str, dtype: str) -> Any:
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
