"""From a model's files, or its server, to something that generates and keeps what it made."""

from __future__ import annotations

from pathlib import Path

from harness.models.files import SERVED, ModelFiles, content_hash, load_model, load_tokenizer, template_hash
from harness.models.generate import Generator
from harness.models.generation_cache import CachedGenerator
from harness.models.server_generator import ServerGenerator

DTYPE = "float32"


def open_generator(files: ModelFiles, device: str, batch: int, keep: Path, *, again: bool = False) -> CachedGenerator:
    """The generator of a model; ``batch`` completions are made together, and ``keep`` is the folder of what was made.

    Of a model in this process a text is made once. A server's model may change behind its name: ``again`` asks it
    anew. Raises BadInput for unfit files.
    """
    if files.url is not None:
        generator = ServerGenerator(files.id.removeprefix(SERVED), files.url, batch, files.client)
        return CachedGenerator(generator, keep, {"served": files.id}, seeded=True, fresh=again)
    identity = {
        "weights": content_hash(files),
        "template": template_hash(files),
        "arithmetic": [DTYPE, device.partition(":")[0]],
    }
    return CachedGenerator(Generator(load_model(files, DTYPE, device), load_tokenizer(files), batch), keep, identity)
