"""How a teacher is loaded: the type of its weights, its device, quantised weights.

Type and quantisation decide what the teacher says, so they stand in the specification of a training where they are
set. The device moves its arithmetic, as ``--device`` does, and stands on the convention card alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.errors import BadInput
from harness.models import devices, engine_choice, quantization
from harness.models.engine_choice import EngineChoice
from harness.models.files import ModelFiles, load_model
from harness.recipe import Recipe, TeacherLoading

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def check(files: ModelFiles, chosen: Recipe, device: str) -> None:
    """Raises BadInput where the teacher cannot be loaded as the recipe says, before any weight is read."""
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
        quantization.check(files, own.quantization, own.device or device)


def dtype_of(chosen: TeacherLoading, otherwise: str) -> str:
    return chosen.dtype or otherwise


def load(files: ModelFiles, chosen: TeacherLoading, dtype: str, device: str) -> PreTrainedModel:
    """The teacher as ``chosen`` says; ``dtype`` and ``device`` are those of the run. Raises BadInput."""
    dtype = dtype_of(chosen, dtype)
    quantized = quantization.config_of(chosen.quantization, dtype) if chosen.quantization else None
    return load_model(files, dtype, chosen.device or device, quantized)


def in_spec(chosen: TeacherLoading) -> dict[str, dict[str, str]]:
    """The entry of a specification; none where nothing is set, which keeps the hashes of other trainings."""
    own = {key: value for key in ("dtype", "quantization") if (value := getattr(chosen, key)) is not None}
    if (engine := engine_of(chosen)) is not None:
        own["engine"] = engine.word
    return {"teacher_loading": own} if own else {}


def engine_of(chosen: TeacherLoading) -> EngineChoice | None:
    """Where the teacher lives, None in this process. Raises BadInput for a word that names no engine."""
    return engine_choice.chosen(chosen.engine or engine_choice.IN_PROCESS, "teacher.engine")


def suffix(chosen: TeacherLoading) -> str:
    """What a key of cached texts has besides the teacher's hash; empty where nothing is set."""
    own: dict[str, Any] = in_spec(chosen).get("teacher_loading", {})
    return "".join(f"+{key}={value}" for key, value in own.items())


def told(chosen: TeacherLoading) -> str:
    """The settings in words, for the convention card; empty where none is set."""
    where = f"on {chosen.device}" if chosen.device else None
    engine = engine_of(chosen)
    behind = f"behind {engine.word}" if engine is not None else None
    return ", ".join(part for part in (chosen.dtype, chosen.quantization, where, behind) if part)
