"""Opens a generator for a model: in this process from its files, or through an OpenAI-compatible server."""

from __future__ import annotations

from pathlib import Path

from harness.models import loading
from harness.models.files import SERVED, ModelFiles, content_hash, load_tokenizer, template_hash
from harness.models.generate import Generator
from harness.models.generation_cache import CachedGenerator
from harness.models.server_generator import ServerGenerator
from harness.recipe import TeacherLoading

DTYPE = "float32"
AS_IT_COMES = TeacherLoading()


def open_generator(
    files: ModelFiles,
    device: str,
    batch: int,
    keep: Path,
    *,
    again: bool = False,
    loaded: TeacherLoading = AS_IT_COMES,
) -> CachedGenerator:
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
        "arithmetic": [
            loading.dtype_of(loaded, DTYPE),
            (loaded.device or device).partition(":")[0],
            *([loaded.quantization] if loaded.quantization else []),
        ],
    }
    model = loading.load(files, loaded, DTYPE, device)
    return CachedGenerator(Generator(model, load_tokenizer(files), batch), keep, identity)
