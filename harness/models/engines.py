"""Opens a generator for a model: in this process from its files, or through an OpenAI-compatible server."""

from __future__ import annotations

from pathlib import Path

from harness.models.files import SERVED, ModelFiles, content_hash, load_model, load_tokenizer, template_hash
from harness.models.generate import Generator
from harness.models.generation_cache import CachedGenerator
from harness.models.server_generator import ServerGenerator

DTYPE = "float32"


def open_generator(files: ModelFiles, device: str, batch: int, keep: Path, *, again: bool = False) -> CachedGenerator:
    """The generator of a model with its cache in ``keep``; ``batch`` completions are generated together.

    A model in this process generates each text once. A server's model may change behind its name, so ``again`` asks
    the server anew. Raises BadInput for files that cannot be loaded.
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
