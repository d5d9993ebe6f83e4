"""The teacher's answers to the training prompts: sampled once, cached, and read by every method and seed.

The file name is a hash of what the texts depend on (teacher, prompts, rendering, decoding). The file is written batch
by batch; an interrupted run continues after the last complete line.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from harness.models.generate import Generated, Generator
from harness.models.token_text import facts
from harness.recipe import Sampling
from harness.seeds import stable_seed
from harness.types import Decoding, Example

BATCH = 128


def teacher_texts(
    generator: Generator,
    teacher_sha256: str,
    prompts: Sequence[Example],
    sampling: Sampling,
    folder: Path,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[Generated]:
    """One answer per prompt, in order. ``folder`` holds the cache; ``progress`` receives (done, total)."""
    texts = [generator.render(e.prompt) for e in prompts]
    named = [teacher_sha256, dataclasses.asdict(sampling), texts]
    if rule := facts(generator.tokenizer):
        named.append(rule)
    key = hashlib.sha256(json.dumps(named).encode()).hexdigest()
    path = folder / f"{key[:24]}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    decoding = Decoding(sampling.temperature, sampling.top_p, sampling.max_new_tokens)
    # Two runs that need the same texts take turns; the second one finds them on disk.
    with FileLock(path.with_suffix(".lock")), path.open("a", encoding="utf-8") as stream:
        done = _read(path)
        while len(done) < len(texts):
            progress(len(done), len(texts))
            batch = slice(len(done), len(done) + BATCH)
            seeds = [stable_seed("teacher", e.id, text) for e, text in zip(prompts[batch], texts[batch], strict=True)]
            made = generator.generate(texts[batch], decoding, seeds)
            stream.writelines(_line(g) for g in made)
            stream.flush()
            os.fsync(stream.fileno())
            done += made
    progress(len(texts), len(texts))
    return done


def _line(generated: Generated) -> str:
    """One text as a line of JSON with its checksum."""
    row = dataclasses.asdict(generated)
    return json.dumps(row | {"crc32": _checksum(row)}) + "\n"


def _checksum(row: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(row).encode())


def _read(path: Path) -> list[Generated]:
    """The texts of an earlier run. Cuts the file at the first torn or changed line; the rest is generated again."""
    if not path.is_file():
        return []
    found, good = [], 0
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            row = json.loads(line)
            if not line.endswith(b"\n") or row.pop("crc32") != _checksum(row):
                break
            fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
            found.append(Generated(**fields))
        except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
            break
        good += len(line)
    with path.open("r+b") as stream:
        stream.truncate(good)
    return found
