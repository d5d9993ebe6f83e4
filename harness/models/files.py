"""Finds and loads models and tokenizers, identifies them by content, and refuses unsuitable ones early.

A model is named by a hub id (``owner/name@revision``), a folder in the transformers format, a GGUF file
(``FILE.gguf``, or ``owner/name/FILE.gguf`` of the hub), the folder or hub id of a PEFT adapter, ``student`` or
``teacher`` after ``micro:`` or ``small:``, or ``openai:MODEL@URL`` where an OpenAI-compatible server runs it; such a
model can be evaluated, not trained.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import logging
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import data, safe_read
from harness.errors import BadInput, NotHere
from harness.models import chat_format, openai_client, weight_files
from harness.models.openai_client import PATIENT_S, ClientOptions
from harness.options import build, key_values
from harness.small import world as small

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.models.chat_format import ChatFormat, TextCodec

MICRO = "micro:"
ASIDE = {"manifest.json", "training.json"}  # record how a model was made; they do not affect its output
SERVED = "openai:"
TRUST = "--set models.trust_remote_code=true (of a judge: hf:MODEL,trust_remote_code=true)"
WITHOUT_WEIGHTS = ["*.json", "*.jinja", "*.model", "*.txt", "*.py"]  # of a hub repository: a few megabytes
CONFIGURATIONS = ("config.json", "tokenizer_config.json", "generation_config.json")  # may name code in auto_map
# transformers imports optional packages, which log to every user what they could not load for another device.
for _name in ("torchao", "bitsandbytes", "torch.utils._pytree"):
    logging.getLogger(_name).setLevel(logging.ERROR)


@dataclass(frozen=True)
class ModelFiles:
    """A model before it is loaded. ``sha256`` covers weights, configuration and tokenizer files.

    A model behind the server at ``url`` has no files; only its name is known.
    """

    id: str
    path: Path
    sha256: str
    url: str | None = None
    client: ClientOptions | None = None  # how to reach that server
    trusted: bool = False  # it has its own Python code, and the user allowed it to run
    format: ChatFormat | None = None  # replaces its own template and ending
    gguf: Path | None = None  # the file with its weights; ``path`` then holds only configuration and tokenizer
    adapter: Path | None = None  # the folder of a PEFT adapter; ``path`` is that of its base model

    @property
    def tokenizer_path(self) -> Path:
        """The folder of the tokenizer: an adapter may have its own."""
        own = self.adapter is not None and (self.adapter / "tokenizer_config.json").is_file()
        return self.adapter if own else self.path

    def identity(self) -> dict[str, Any]:
        facts = {"id": self.id, "sha256": self.sha256} | ({"trust_remote_code": True} if self.trusted else {})
        return facts | ({} if self.format is None else {"format": self.format.identity()})


def locate(name: str, trust: bool = False, *, weights: bool = True, hashed: bool = True) -> ModelFiles:
    """The files of a model, fetched from the hub if need be. Raises BadInput when they are not available.

    A model with its own code is refused unless ``trust`` allows it to run. Without ``weights``
    only configuration and tokenizer are fetched, which is enough to check a pair; the hash then covers these.
    ``hashed=False`` reads no weights of a folder, if only the tokenizer is needed.
    """
    if name.startswith(MICRO):
        from harness.micro.world import model_path

        return ModelFiles(name, model_path(name.removeprefix(MICRO)), _digest(model_path(name.removeprefix(MICRO))))
    if name.startswith(small.PREFIX):
        path = small.model_path(name.removeprefix(small.PREFIX))
        return ModelFiles(name, path, _digest(path))
    if name.startswith(SERVED):
        return _served(name)
    if name.lower().endswith(weight_files.GGUF):
        return _gguf(name, _gguf_file(name, weights))
    path = Path(name)
    if path.is_dir():
        return _in_folder(portable(name), path, trust, weights, hashed)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") != 1:
        raise BadInput(f"no model folder at {name}; give a folder, a hub id such as org/name, or micro:student")
    return _in_folder(name, _snapshot(name, weights), trust, weights, hashed)


def _snapshot(name: str, weights: bool) -> Path:
    """The folder of a hub repository ``owner/name@revision``; without ``weights`` a cached whole one still counts."""
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    filters: dict[str, Any] = (
        {"ignore_patterns": ["*.gguf", "*.pth"]} if weights else {"allow_patterns": WITHOUT_WEIGHTS}
    )
    away = data.model_hub_away()  # then look only into the cache
    try:
        return Path(snapshot_download(repository, revision=revision or None, local_files_only=bool(away), **filters))
    except Exception as error:  # the hub client raises dozens of unrelated types for an unavailable model
        reason = away or f"the hub did not deliver it: {_first_line(error)}"
        raise NotHere(f"model {name} is not a local folder and {reason}; {data.otherwise(repository, away)}") from None


def _gguf_file(name: str, weights: bool) -> Path:
    """The GGUF file of that name: on this machine, or ``owner/name@revision/FILE.gguf`` of the hub.

    It is one file, which cannot be checked before it is fetched: without ``weights`` it must be on this machine.
    """
    if Path(name).is_file():
        return Path(name)
    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    if Path(name).is_absolute() or name.startswith((".", "~")) or not file:
        raise BadInput(f"no GGUF file at {name}; give a file, or owner/name/FILE.gguf of the hub")
    from huggingface_hub import hf_hub_download

    repository, _, revision = repository.partition("@")
    needed = f"it must be on this machine to be checked: hf download {owner}/{repository} {file}"
    away = data.model_hub_away() if weights else needed
    try:
        path = hf_hub_download(f"{owner}/{repository}", file, revision=revision or None, local_files_only=bool(away))
    except Exception as error:  # as in _snapshot
        how = away or f"the hub did not deliver it: {_first_line(error)}"
        then = "" if away == needed else f"; {data.otherwise(f'{owner}/{repository} {file}', away)}"
        raise NotHere(f"{name} is not a file on this machine and {how}{then}") from None
    return Path(path)


def _gguf(name: str, file: Path) -> ModelFiles:
    shown = portable(name) if Path(name).exists() else name
    return ModelFiles(shown, weight_files.describe_gguf(file, name), weight_files.gguf_digest(file), gguf=file)


def _in_folder(name: str, folder: Path, trust: bool, weights: bool, hashed: bool) -> ModelFiles:
    """The model in a folder: whole, an adapter, or one GGUF file. Raises BadInput for what cannot be used."""
    weight_files.check_files(folder, name)
    if weight_files.is_adapter(folder):
        return _adapter(name, folder, trust, weights)
    if (file := weight_files.gguf_in(folder)) is not None:
        return replace(_gguf(str(file), file), id=name)
    if not (folder / "config.json").is_file():
        several = " (of a repository of GGUF files name one: owner/name/FILE.gguf)" if "/" in name else ""
        raise BadInput(f"{name} is not a model folder: config.json is missing{several}")
    safetensors = weight_files.weights_in(folder)
    if weights:
        weight_files.check_weights(folder, name)
    own = own_code(folder)
    if own and not trust:
        raise BadInput(
            f"the model {name} brings code of its own ({own}), which is not run; use another model, or read that code "
            f"and allow it with {TRUST}"
        )
    digest = _digest(folder, bool(own)) if hashed else "not read"
    return ModelFiles(name, folder, digest if safetensors else f"without weights: {digest}", trusted=bool(own))


def _adapter(name: str, folder: Path, trust: bool, weights: bool) -> ModelFiles:
    """A PEFT adapter on its base model. Raises BadInput naming a base that is not available."""
    base = weight_files.base_of(folder, name, weights)
    try:
        base_files = locate(base, trust, weights=weights)
    except BadInput as error:
        raise BadInput(
            f"the adapter {name} needs its base model {base}: {error}; base_model_name_or_path in its "
            f"{weight_files.ADAPTER} may name a folder or another hub id"
        ) from None
    if base_files.url is not None or base_files.adapter is not None:
        raise BadInput(f"the adapter {name} needs its base model, and {base} is a server or an adapter itself")
    return replace(base_files, id=name, adapter=folder, sha256=weight_files.adapter_digest(folder, base_files.sha256))


def own_code(folder: Path) -> str:
    """The place where the configuration of a model names Python code that loading would run, or "".

    Raises BadInput for a configuration that cannot be read, and for code of another repository: no hash of the
    folder covers it, so what would run is unknown.
    """
    place = ""
    for file in CONFIGURATIONS:
        if not (folder / file).exists():
            continue
        try:
            content = safe_read.value(safe_read.content(folder / file, safe_read.RECORD), finite=False)
        except BadInput as error:
            raise BadInput(f"{folder / file}: {error}") from None
        if not isinstance(content, dict):
            raise BadInput(f"{folder / file}: is not a JSON object")
        names = [part for value in _values(content.get("auto_map")) for part in _values(value)]
        kernels = [v for key, v in content.items() if key.endswith("attn_implementation") and "/" in str(v)]
        for foreign in [name for name in names if "--" in str(name)] + kernels:
            raise BadInput(f"{folder / file}: takes code from elsewhere ({str(foreign)[:80]!r}), which is never run")
        place = place or (f"auto_map in {file}" if names else "")
    return place


def _values(value: Any) -> list[Any]:
    """The members of a list or an object; anything else as its own single member; none for None."""
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else [] if value is None else [value]


def is_here(name: str) -> bool:
    """Whether :func:`locate` needs no download: the model ships, is served, is a folder, or is in the hub cache."""
    if name.lower().endswith(weight_files.GGUF):
        with contextlib.suppress(BadInput):
            return _gguf_file(name, weights=False).is_file()
        return False
    if name.startswith((MICRO, SERVED)) or Path(name).is_dir() or name.count("/") != 1:
        return True
    from huggingface_hub import snapshot_download

    repository, _, revision = name.partition("@")
    try:
        folder = Path(snapshot_download(repository, revision=revision or None, local_files_only=True))
    except (OSError, ValueError):  # LocalEntryNotFoundError and HFValidationError are subclasses of these
        return False
    if weight_files.is_adapter(folder):
        return is_here(weight_files.base_of(folder, name, weights=False))
    # A dry run leaves configuration and tokenizer in the cache.
    return bool(weight_files.weights_in(folder)) and not weight_files.absent_shards(folder, name)


def _served(name: str) -> ModelFiles:
    """A served model, identified without its address: the same model may move to another server.

    ``openai:MODEL@URL`` may be followed by the fields of :class:`ClientOptions`, as in ``,key_env=NAME``.
    """
    address, *settings = name.removeprefix(SERVED).split(",")
    model, url = openai_client.split_name(address, name)
    if not model or url is None:
        raise BadInput(f"{name}: a served model is written openai:MODEL@http://host:port/v1")
    options = build(ClientOptions, {"timeout_s": PATIENT_S} | key_values(settings, name), name)
    openai_client.OpenAIClient(model, url, options, name)  # refuses a bad address or key before any work
    return ModelFiles(f"{SERVED}{model}", Path(), "unknown: served", url, options)


def portable(name: str) -> str:
    """The name of the folder, without its path: records are shared between machines, paths are not."""
    return Path(os.path.abspath(name)).name


def content_hash(files: ModelFiles) -> str:
    """The sha256 of weights, configuration and tokenizer, also of a student that was trained here."""
    return files.sha256 or _digest(files.path, files.trusted)


def _digest(folder: Path, code: bool = False) -> str:
    """The hash of the files that decide texts; ``code`` adds the Python files of a model that runs them."""
    suffixes = {".safetensors", ".bin", ".json", ".model", ".txt", ".jinja"} | ({".py"} if code else set())
    return safe_read.digest(sorted(p for p in folder.iterdir() if p.suffix in suffixes and p.name not in ASIDE))


def declared(files: ModelFiles, key: str) -> list[int]:
    """The whole numbers under ``key`` in a model's generation_config.json, or where that has none in config.json."""
    for name in ("generation_config.json", "config.json"):
        if not (files.path / name).is_file():
            continue
        content = safe_read.value(safe_read.content(files.path / name, safe_read.RECORD), finite=False)
        parts = [content, content.get("text_config")] if isinstance(content, dict) else []
        for value in (part.get(key) for part in parts if isinstance(part, dict)):
            if value is not None:
                return [n for n in (value if isinstance(value, list) else [value]) if type(n) is int]
    return []


def load_tokenizer(files: ModelFiles) -> PreTrainedTokenizerBase:
    """Loads the tokenizer and gives it a padding token. Raises BadInput when it cannot be loaded."""
    from transformers import AutoTokenizer

    _check_there(files)
    try:
        tokenizer = AutoTokenizer.from_pretrained(files.tokenizer_path, trust_remote_code=files.trusted)
    except Exception as error:  # tokenizer loading surfaces parser errors of several libraries
        raise BadInput(f"the tokenizer of {files.id} cannot be loaded: {_first_line(error)}") from None
    if tokenizer.eos_token_id is None:
        raise BadInput(f"the tokenizer of {files.id} has no end-of-sequence token; set eos_token in its config")
    chat_format.on_one_day(tokenizer)
    if files.format is not None:
        files.format.put_on(tokenizer)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    files: ModelFiles, dtype: str = "float32", device: str = "cpu", quantized: Any = None
) -> PreTrainedModel:
    """Loads a causal language model in evaluation mode. Raises BadInput for missing or corrupt weights.

    ``quantized``: transformers' configuration of weights that are quantised while they are loaded.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from harness.models import bfloat16_products

    _check_there(files)
    if dtype == "bfloat16" and device == "cpu":
        bfloat16_products.widen()
    logging.disable_progress_bar()
    kwargs: dict[str, Any] = {"attn_implementation": "sdpa"} if device.startswith("cuda") else {}
    folder = files.path
    if files.gguf is not None:
        folder, kwargs["gguf_file"] = files.gguf.parent, files.gguf.name
    # Quantised weights are created on their device and cannot move.
    placed = quantized is not None or _is_quantized(files)
    if placed:
        kwargs |= {"device_map": {"": device}} | ({"quantization_config": quantized} if quantized is not None else {})
    try:
        with weight_files.quiet() if files.gguf else contextlib.nullcontext():
            model, report = AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                output_loading_info=True,
                trust_remote_code=files.trusted,
                weights_only=True,  # of pytorch_model.bin: a pickle that would run code is refused
                **kwargs,
            )
    except Exception as error:  # safetensors, json, OS and config errors all mean that the folder holds no usable model
        raise BadInput(f"the model {files.id} cannot be loaded: {_first_line(error)}") from None
    missing = [key for key in report["missing_keys"] if "rotary" not in key]
    if missing:
        raise BadInput(
            f"the weights of {files.id} lack {len(missing)} tensors, first {missing[0]}: the folder is corrupt"
        )
    if files.gguf is not None:
        model = weight_files.dequantized(model)
    if files.adapter is not None:
        model = weight_files.merged(model, files.adapter, files.id)
    if files.format is not None:
        files.format.stop(model)
    return (model if placed else model.to(device)).eval()


def _is_quantized(files: ModelFiles) -> bool:
    """Whether the checkpoint says that its weights are quantised."""
    try:
        return "quantization_config" in json.loads((files.path / "config.json").read_text("utf-8"))
    except (OSError, ValueError):
        return False


def _check_there(files: ModelFiles) -> None:
    """Raises BadInput for a deleted folder, whose path transformers would take for a hub repository name."""
    if not files.path.is_dir():
        raise BadInput(
            f"the folder of model {files.id} is gone: {files.path}; restore it and run the same command again"
        )


def template_hash(files: ModelFiles) -> str:
    """Identifies how prompts become token ids: the chat template and the tokenizer's special tokens."""
    if files.url is not None:
        return "the server's"
    tokenizer = load_tokenizer(files)
    facts = [tokenizer.chat_template, tokenizer.special_tokens_map, tokenizer(PROBE)["input_ids"]]
    if rule := text_rule(files):
        facts.append(rule)
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]


@functools.cache
def text_codec(files: ModelFiles) -> TextCodec | None:
    """Prompt rendering and encoding of a model, without its weights; None for a served model, which renders itself."""
    if files.url is not None:
        return None
    from harness.models.chat_format import TextCodec

    return TextCodec(load_tokenizer(files))


def text_rule(files: ModelFiles) -> dict[str, Any]:
    """The facts of :func:`harness.models.token_text.facts` about a model; empty for a served model."""
    if files.url is not None:
        return {}
    from harness.models.token_text import facts

    return facts(load_tokenizer(files))


def _first_line(error: BaseException) -> str:
    if "trust_remote_code" in str(error):
        return f"it has its own code, which is not run; use another model, or allow it with {TRUST}"
    lines = str(error).strip().splitlines()
    return (" ".join(lines) if lines and lines[0].endswith(":") else next(iter(lines), type(error).__name__))[:200]


PROBE = "def f(x):\n    return x**2 + 10  # \\boxed{1,234} naïve\n\nProblem: 3 + 4 = 7"  # enters template hashes
