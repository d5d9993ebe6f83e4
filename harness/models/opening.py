"""From a model's files, or its server, to something that generates."""

from __future__ import annotations

from harness.models.files import SERVED, ModelFiles, load_model, load_tokenizer
from harness.models.generate import Generator
from harness.models.server import ServerGenerator


def open_generator(files: ModelFiles, device: str, batch: int) -> Generator | ServerGenerator:
    """The generator of a model; ``batch`` completions are made together. Raises BadInput for unfit files."""
    if files.url is not None:
        return ServerGenerator(files.id.removeprefix(SERVED), files.url, batch)
    return Generator(load_model(files, "float32", device), load_tokenizer(files), batch)
