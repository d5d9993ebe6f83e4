"""The weight files of a model folder, and models that are not a whole folder: a GGUF file, or a PEFT adapter.

GGUF files and adapters are read through the libraries that define them. A GGUF file holds configuration, tokenizer and
weights: the first two are written into a temporary folder, where everything else finds them, and the weights are
dequantised when they are loaded. An adapter is merged into the weights of its base when these are loaded.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import io
import shutil
import stat
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import safe_read
from harness.errors import BadInput, install

if TYPE_CHECKING:
    from transformers import PreTrainedModel

GGUF = ".gguf"
ADAPTER = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")
# Adapters that change no weights cannot be merged.
PROMPTS = {"PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "ADAPTION_PROMPT", "CPT"}
INDEX = "*.index.json"
TEXTS = {".json", ".jinja", ".txt", ".py", ".model"}  # of a model folder; tokenizers have up to 40 MB
READ = TEXTS | {".safetensors", ".bin"}
MOST_TEXT = 500 * safe_read.MB
POINTER = b"version https://git-lfs"
OTHERWISE = "give a file with another quantisation, such as Q4_K_M or Q8_0"
OTHER_FORMS = {
    "*.pth": "weights in Meta's own form; use the repository in the transformers format",
    "*.ckpt*": "weights of TensorFlow or Lightning; save them with transformers' save_pretrained",
    "*.h5": "weights of TensorFlow; save them with transformers' save_pretrained",
    "*.msgpack": "weights of Flax; save them with transformers' save_pretrained",
    "*.onnx": "an ONNX graph, which cannot be trained; use the model it was exported from",
    "*.npz": "weights of MLX or numpy; use the model they were converted from",
}


def gguf_in(folder: Path) -> Path | None:
    """The only GGUF file in a folder without other weights. Raises BadInput if there are several."""
    candidates = sorted(p for p in folder.iterdir() if p.suffix.lower() == GGUF)
    if not candidates or weights_in(folder):
        return None
    if len(candidates) > 1:
        names = ", ".join(p.name for p in candidates[:4]) + (", …" if len(candidates) > 4 else "")
        raise BadInput(f"{folder} holds {len(candidates)} GGUF files ({names}): name one of them")
    return candidates[0]


def weights_in(folder: Path) -> list[Path]:
    """The files of weights that transformers reads, in their order."""
    return sorted(
        p for kind in ("*.safetensors", "*.bin") for p in folder.glob(kind) if not p.name.startswith("adapter")
    )


def check_files(folder: Path, name: str) -> None:
    """Raises BadInput for a file on which a loader would block or never finish: a pipe, a device, a huge text."""
    for file in sorted(folder.iterdir()):
        if file.suffix not in READ or not file.exists():
            continue
        status = file.stat()
        if not stat.S_ISREG(status.st_mode) and not file.is_dir():
            raise BadInput(f"{name}: {file.name} is not a regular file; delete it, or fetch the model again")
        if file.suffix in TEXTS and status.st_size > MOST_TEXT:
            raise BadInput(
                f"{name}: {file.name} has {status.st_size / safe_read.MB:,.0f} MB, more than the "
                f"{MOST_TEXT // safe_read.MB} MB allowed for such a file; fetch the model again"
            )


def check_weights(folder: Path, name: str) -> None:
    """Raises BadInput for a folder whose weights are missing, incomplete, or in an unusable format."""
    if absent := absent_shards(folder, name):
        raise BadInput(
            f"{name} is incomplete: its index names {len(absent)} files of weights that are not there, first "
            f"{absent[0]}; fetch it again"
        )
    weights = weights_in(folder)
    if not weights:
        for pattern, why in OTHER_FORMS.items():
            if file := next(iter(sorted(folder.glob(pattern))), None):
                raise BadInput(f"{name} holds no weights (*.safetensors): {file.name} is {why}")
        raise BadInput(f"{name} holds no weights (*.safetensors): the model folder is incomplete")
    for file in weights:
        check_pointer(file, name)


def absent_shards(folder: Path, name: str) -> list[str]:
    """The files of weights that the index of a sharded model names and the folder lacks.

    Of the indexes of safetensors and pytorch_model.bin one is enough, because transformers reads only one.
    """
    if (folder / "model.safetensors").is_file():
        return []
    absent = [sorted(s for s in _shards(index, name) if not (folder / s).is_file()) for index in folder.glob(INDEX)]
    return [] if not all(absent) else min(absent, key=len, default=[])


def check_pointer(file: Path, name: str) -> None:
    """Raises BadInput for a Git LFS pointer in place of a file."""
    with file.open("rb") as stream:
        if stream.read(len(POINTER)) == POINTER:
            raise BadInput(f"{name}: {file.name} is a pointer of Git LFS, not the file; run git lfs pull there")


def _shards(index: Path, name: str) -> set[str]:
    """The files that an index of sharded weights names."""
    content = _json(index, f"{name}/{index.name}", safe_read.LARGE)
    names = content.get("weight_map")
    if not isinstance(names, dict) or not all(isinstance(file, str) for file in names.values()):
        raise BadInput(f"{name}/{index.name}: has no weight_map from tensors to files; fetch the model again")
    return set(names.values())


def _json(file: Path, name: str, limit: int = safe_read.RECORD) -> dict[str, Any]:
    try:
        content = safe_read.value(safe_read.content(file, limit), finite=False)
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from None
    if not isinstance(content, dict):
        raise BadInput(f"{name}: is not a JSON object")
    return content


# -- GGUF


def describe_gguf(file: Path, name: str) -> Path:
    """A temporary folder with configuration and tokenizer of a GGUF file, removed when the process ends.

    Tokenizer files next to the GGUF file replace the one inside: they are the model's own, not converted.
    Raises BadInput where the file cannot be read.
    """
    _need("gguf", f"{name} is a GGUF file")
    check_pointer(file, name)
    beside = tuple(part for own in TOKENIZER if (part := file.with_name(own)).is_file())
    return _described(file.resolve(), beside, name, safe_read.digest([file, *beside]))


@functools.cache
def _described(file: Path, beside: tuple[Path, ...], name: str, _digest: str) -> Path:
    from transformers import AutoConfig, AutoTokenizer

    folder = Path(tempfile.mkdtemp(prefix="harness-gguf-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    try:
        with quiet():
            config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
            if not any(part.name == TOKENIZER[0] for part in beside):
                AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
        config.save_pretrained(folder)
        unreadable = _unreadable_types(file)
    except Exception as error:  # the reader and the converters raise many types of errors for an unknown file
        reason = _first_line(error)
        if "GGMLQuantizationType" in reason:
            reason = f"it has a quantisation that the package gguf does not know ({reason}); {OTHERWISE}"
        raise BadInput(f"{name} cannot be read as GGUF: {reason}") from None
    if unreadable:
        raise BadInput(f"{name} is quantised as {', '.join(unreadable)}, which transformers does not read; {OTHERWISE}")
    for part in beside:
        shutil.copyfile(part, folder / part.name)
    return folder


def _unreadable_types(file: Path) -> list[str]:
    """The unsupported quantisations of a GGUF file's tensors, found by dequantising one block of zeros."""
    import gguf
    import numpy

    unreadable = []
    for kind in sorted({tensor.tensor_type for tensor in gguf.GGUFReader(file).tensors}):
        _, size = gguf.GGML_QUANT_SIZES[kind]
        try:
            gguf.quants.dequantize(numpy.zeros((1, size), numpy.uint8), kind)
        except NotImplementedError:
            unreadable.append(kind.name)
    return unreadable


def gguf_digest(file: Path) -> str:
    """The hash of a GGUF file and of the tokenizer files used with it."""
    return safe_read.digest([file, *(p for name in TOKENIZER if (p := file.with_name(name)).is_file())])


def gguf_parameters(file: Path) -> int:
    """The number of weights in a GGUF file."""
    from gguf import GGUFReader

    return sum(int(tensor.n_elements) for tensor in GGUFReader(file).tensors)


def dequantized(model: PreTrainedModel) -> PreTrainedModel:
    """The model as an ordinary one. Its weights are already dequantised; this removes the marks of quantisation."""
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model, "quantization_method"):
        del model.quantization_method
    return model


# -- adapters


def is_adapter(folder: Path) -> bool:
    return (folder / ADAPTER).is_file() and not (folder / "config.json").is_file()


def base_of(folder: Path, name: str, weights: bool = True) -> str:
    """The base model that an adapter names: a folder, or a hub id with its revision.

    Raises BadInput for an adapter that names none, or that changes no weights.
    """
    content = _json(folder / ADAPTER, f"{name}/{ADAPTER}")
    kind, base = content.get("peft_type"), content.get("base_model_name_or_path")
    if kind in PROMPTS:
        raise BadInput(
            f"{name} holds an adapter of the kind {kind}, which cannot be merged into the weights of a model"
        )
    if weights and not any(folder.glob("adapter_model.*")):
        raise BadInput(f"{name} holds no weights of the adapter ({ADAPTER_WEIGHTS}): the folder is incomplete")
    if not isinstance(base, str) or not base:
        raise BadInput(
            f"{name}/{ADAPTER} names no base model; set base_model_name_or_path to the folder or hub id of the model "
            "that the adapter was trained on"
        )
    # A relative folder may start from the working directory, or from the adapter.
    if not Path(base).is_dir() and (folder / base).is_dir():
        return str(folder / base)
    revision = content.get("revision")
    on_hub = base.count("/") == 1 and "@" not in base and not Path(base).exists()
    return f"{base}@{revision}" if on_hub and isinstance(revision, str) and revision else base


def adapter_digest(folder: Path, base: str) -> str:
    """The hash of an adapter, its tokenizer, and its base, whose hash is ``base``."""
    files = [*sorted(folder.glob("adapter_*")), *(folder / part for part in TOKENIZER)]
    return hashlib.sha256((base + safe_read.digest([f for f in files if f.is_file()])).encode()).hexdigest()


def merged(model: PreTrainedModel, folder: Path, name: str) -> PreTrainedModel:
    """The base ``model`` with the adapter in its weights. Raises BadInput for an adapter of another model."""
    _need("peft", f"{name} is an adapter")
    import peft

    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _fit_embedding(model, folder)
            wrapped = peft.PeftModel.from_pretrained(model, folder)
            whole = wrapped.merge_and_unload(safe_merge=True)
    except Exception as error:  # shapes, names and kinds that do not fit raise many types
        raise BadInput(f"the adapter {name} does not fit its base model: {_first_line(error)}") from None
    # peft would initialise modules that the adapter lacks, and only warns about them.
    if lost := next((str(w.message) for w in caught if "missing adapter keys" in str(w.message)), None):
        raise BadInput(f"the adapter {name} does not fit its base model: {_first_line(ValueError(lost))}")
    whole.requires_grad_(True)
    for mark in ("peft_config", "_hf_peft_config_loaded"):
        if mark in vars(whole):
            delattr(whole, mark)
    return whole


def _fit_embedding(model: PreTrainedModel, folder: Path) -> None:
    """Resizes the base's embedding to the rows that the adapter saved, if it added tokens."""
    from safetensors import safe_open

    file = folder / ADAPTER_WEIGHTS
    if not file.is_file():
        return
    with safe_open(file, framework="pt") as stream:
        names = [n for n in stream.keys() if n.endswith(("embed_tokens.weight", "wte.weight"))]  # noqa: SIM118
        rows = [stream.get_slice(n).get_shape()[0] for n in names]
    if rows and rows[0] != model.get_input_embeddings().weight.shape[0]:
        model.resize_token_embeddings(rows[0])


def _need(package: str, why: str) -> None:
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise BadInput(f"{why}, which needs {package}, which is not installed: {install(package)}")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Hides the progress bars of the conversion."""
    with contextlib.redirect_stderr(io.StringIO()):
        yield


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (" ".join(lines[:2]) if lines else type(error).__name__)[:240]
