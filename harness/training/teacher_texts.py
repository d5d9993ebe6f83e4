"""The teacher's answers to the training prompts: sampled once, cached one by one, and read by every method and seed.

The key of an answer covers all that it depends on (teacher, rendered prompt, decoding, the seed of its prompt). A run
requests only the prompts that its steps read, and runs share the answers that both need. Every answer is stored as soon
as it is complete: an interrupted run loses only unfinished ones.
"""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from harness import options
from harness.durable import CacheFile, digest
from harness.models.engine_choice import Engine
from harness.models.generate import Generated
from harness.models.token_text import facts
from harness.progress import TextCount
from harness.recipe import Sampling
from harness.types import Decoding, Example, stable_seed

BATCH = 128  # prompts per call of the generator


def teacher_texts(
    generator: Engine,
    teacher_sha256: str,
    prompts: Sequence[Example],
    sampling: Sampling,
    folder: Path,
    progress: Callable[[int, int, str], None] = lambda done, total, details: None,
) -> list[Generated]:
    """One answer per prompt, in order. ``folder`` holds the cache; ``progress`` receives (done, total, details)."""
    texts = [generator.render(e.prompt) for e in prompts]
    seeds = [stable_seed("teacher", e.id, text) for e, text in zip(prompts, texts, strict=True)]
    keys = [digest([text, seed]) for text, seed in zip(texts, seeds, strict=True)]
    own = {key: value for key, value in options.set_apart(sampling).items() if key != "engine"}
    identity = {"teacher": teacher_sha256, "sampling": own, "rule": facts(generator.tokenizer)}
    cache = CacheFile(folder, identity)
    decoding = Decoding(sampling.temperature, sampling.top_p, sampling.max_new_tokens)
    # Two runs that need the same texts take turns; the second one finds them on disk.
    with FileLock(cache.path.with_suffix(".lock")):
        texts_by_key = dict(cache.read(_read))
        tally = _Keeping(progress, keys, cache, texts_by_key)
        missing = [i for i, key in enumerate(keys) if key not in texts_by_key]
        for start in range(0, len(missing), BATCH):
            tally.prompts = missing[start : start + BATCH]
            generator.generate([texts[i] for i in tally.prompts], decoding, [seeds[i] for i in tally.prompts], tally)
        if missing:
            cache.add({}, sync=True)
    return [texts_by_key[key] for key in keys]


class _Keeping(TextCount):
    """Stores every answer as soon as it is complete. ``prompts`` numbers those of the generator's last call."""

    def __init__(
        self,
        report: Callable[[int, int, str], None],
        keys: Sequence[str],
        cache: CacheFile,
        texts_by_key: dict[str, Generated],
    ):
        super().__init__(report, len(keys))
        self.keys, self.cache, self.texts_by_key = keys, cache, texts_by_key
        self.prompts: list[int] = []
        self.texts = sum(key in texts_by_key for key in keys)

    def finished(self, row: int, generated: Generated) -> None:
        key = self.keys[self.prompts[row]]
        self.cache.add({key: _fields(generated)}, sync=False)
        self.texts_by_key[key] = generated
        super().finished(row, generated)


def _fields(generated: Generated) -> dict[str, Any]:
    """The fields of an answer with their checksum."""
    fields = dataclasses.asdict(generated)
    return fields | {"crc32": _checksum(fields)}


def _checksum(fields: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(fields).encode())


def _read(fields: dict[str, Any]) -> Generated | None:
    """The answer of a line; None if the line was changed, so that it is sampled again."""
    try:
        if fields.pop("crc32") != _checksum(fields):
            return None
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()}
        return Generated(**values)
    except (KeyError, TypeError):
        return None
