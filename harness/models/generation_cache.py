"""A cache of generated texts, so that none is generated twice and interrupted runs resume.

The key of a text covers everything that decides it: weights, tokenizer files and chat template (one cache file each),
the rendered prompt, the decoding, and the seed of its row, which comes from run seed, task, problem and sample index.
Greedy texts of a model in this process have no seed, so every run and seed shares them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.cache_file import CacheFile, digest
from harness.types import Decoding

PIECE = 4  # batches per write to disk


@dataclass(frozen=True)
class CachedAnswer:
    """A completion: its ``tokens`` are the model's own count, ``finish`` is stop or length."""

    text: str
    tokens: int
    finish: str


class CachedGenerator:
    """Wraps a generator: only texts that are not in ``folder`` are requested from ``inner``.

    Where ``inner`` yields texts one by one (``each``), each is written at once; otherwise every few batches.

    ``identity`` is everything about the model that decides its text. ``seeded``: greedy text may differ from seed to
    seed, as a server's may. ``fresh``: generate everything again and keep that.
    """

    def __init__(
        self, inner: Any, folder: Path, identity: Mapping[str, Any], *, seeded: bool = False, fresh: bool = False
    ):
        self.inner, self.seeded = inner, seeded
        self._cache_file = CacheFile(folder, identity)
        self._answers: dict[str, CachedAnswer] = {}
        for key, fields in self._cache_file.read():
            answer = _answer(fields)
            if answer is not None and not fresh:
                self._answers[key] = answer
        self.reused = 0  # answers taken from the cache so far

    def __getattr__(self, name: str) -> Any:
        """Everything else is delegated to ``inner``."""
        return getattr(self.inner, name)

    def generate(
        self,
        texts: Sequence[str],
        decoding: Decoding,
        seeds: Sequence[int],
        progress: Callable[[int], None] = lambda rows: None,
    ) -> list[CachedAnswer]:
        """One continuation of each rendered text, in order. New texts are on disk when this returns."""
        keys = [self._key(text, decoding, seed) for text, seed in zip(texts, seeds, strict=True)]
        new = {key: i for i, key in enumerate(keys) if key not in self._answers}
        self.reused += len(keys) - len(new)
        progress(len(keys) - len(new))
        rows = sorted(new.values(), key=lambda i: len(texts[i]))  # the inner generator batches by length
        if hasattr(self.inner, "each"):
            for i, made in self.inner.each([texts[i] for i in rows], decoding, [seeds[i] for i in rows]):
                self._keep({keys[rows[i]]: made})
                progress(1)
        else:
            size = PIECE * self.inner.batch
            for piece in (rows[start : start + size] for start in range(0, len(rows), size)):
                made = self.inner.generate([texts[i] for i in piece], decoding, [seeds[i] for i in piece])
                self._keep({keys[i]: answer for i, answer in zip(piece, made, strict=True)})
                progress(len(piece))
        return [self._answers[key] for key in keys]

    def _keep(self, made: Mapping[str, Any]) -> None:
        answers = {key: CachedAnswer(a.text, a.tokens, a.finish) for key, a in made.items()}
        self._cache_file.add({key: asdict(answer) for key, answer in answers.items()})
        self._answers |= answers

    def _key(self, text: str, decoding: Decoding, seed: int) -> str:
        settings = {k: v for k, v in asdict(decoding).items() if k != "samples"}
        sown = self.seeded or decoding.temperature > 0
        return digest([text, settings, seed if sown else None])


def _answer(fields: Mapping[str, Any]) -> CachedAnswer | None:
    """The answer of a line, or None where the line is not in our format."""
    types = {"text": str, "tokens": int, "finish": str}
    if fields.keys() != types.keys() or not all(isinstance(fields[name], kind) for name, kind in types.items()):
        return None
    return CachedAnswer(**fields)
