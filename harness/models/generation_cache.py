"""A cache of generated texts, so that none is generated twice and interrupted runs resume.

The key of a text covers everything that determines it: weights, tokenizer files and chat template (one cache file
each), the rendered prompt, the decoding, and the seed of its row, which comes from run seed, task, problem and sample
index. Greedy texts of a model in this process have no seed, so every run and seed shares them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.durable import CacheFile, digest
from harness.progress import UNWATCHED, Watch
from harness.types import Decoding

PIECE = 4  # batches per call of the inner generator


@dataclass(frozen=True)
class CachedAnswer:
    """A completion: its ``tokens`` are the model's own count, ``finish`` is stop or length."""

    text: str
    tokens: int
    finish: str


class CachedGenerator:
    """Wraps a generator: only texts that are not in ``folder`` are requested from ``inner``.

    Every text is written as soon as it is complete, while others are still in progress.

    ``identity`` is everything about the model that determines its text. ``seeded``: greedy text may differ from seed to
    seed, as with a server. ``fresh``: generate everything again and keep that.
    """

    def __init__(
        self, inner: Any, folder: Path, identity: Mapping[str, Any], *, seeded: bool = False, fresh: bool = False
    ):
        self.inner, self.seeded = inner, seeded
        self._cache_file = CacheFile(folder, identity)
        self._answers: dict[str, CachedAnswer] = {}
        if not fresh:
            self._answers |= self._cache_file.read(_answer)
        self.reused = 0  # answers taken from the cache so far

    def __getattr__(self, name: str) -> Any:
        """Everything else is delegated to ``inner``."""
        return getattr(self.inner, name)

    def generate(
        self,
        texts: Sequence[str],
        decoding: Decoding,
        seeds: Sequence[int],
        watch: Watch = UNWATCHED,
    ) -> list[CachedAnswer]:
        """One continuation of each rendered text, in order. New texts are on disk when this returns."""
        keys = [self._key(text, decoding, seed) for text, seed in zip(texts, seeds, strict=True)]
        rows_of: dict[str, list[int]] = {}
        for i, key in enumerate(keys):
            rows_of.setdefault(key, []).append(i)
        new = {key: rows[-1] for key, rows in rows_of.items() if key not in self._answers}
        self.reused += len(keys) - len(new)
        for key in rows_of.keys() - new.keys():
            self._tell(key, rows_of[key], watch)
        rows = sorted(new.values(), key=lambda i: len(texts[i]))  # the inner generator batches by length

        def keep(i: int, generated: Any) -> None:
            self._keep(keys[i], generated)
            self._tell(keys[i], rows_of[keys[i]], watch)

        if hasattr(self.inner, "each"):
            for i, generated in self.inner.each([texts[i] for i in rows], decoding, [seeds[i] for i in rows]):
                watch.wrote(generated.tokens)
                keep(rows[i], generated)
        else:
            size = PIECE * self.inner.batch
            for piece in (rows[start : start + size] for start in range(0, len(rows), size)):
                forwarding = _Forwarding(watch, piece, keep)
                self.inner.generate([texts[i] for i in piece], decoding, [seeds[i] for i in piece], forwarding)
        if new:
            self._cache_file.add({}, sync=True)
        return [self._answers[key] for key in keys]

    def _keep(self, key: str, generated: Any) -> None:
        answer = CachedAnswer(generated.text, generated.tokens, generated.finish)
        self._cache_file.add({key: asdict(answer)}, sync=False)
        self._answers[key] = answer

    def _tell(self, key: str, rows: Sequence[int], watch: Watch) -> None:
        for row in rows:
            watch.finished(row, self._answers[key])

    def _key(self, text: str, decoding: Decoding, seed: int) -> str:
        settings = {k: v for k, v in asdict(decoding).items() if k != "samples"}
        sown = self.seeded or decoding.temperature > 0
        return digest([text, settings, seed if sown else None])


class _Forwarding(Watch):
    """Forwards the progress of some of the requests; ``rows`` are their numbers."""

    def __init__(self, watch: Watch, rows: Sequence[int], keep: Callable[[int, Any], None]):
        self.watch, self.rows, self.keep = watch, rows, keep

    def wrote(self, tokens: int) -> None:
        self.watch.wrote(tokens)

    def finished(self, row: int, generated: Any) -> None:
        self.keep(self.rows[row], generated)


def _answer(fields: Mapping[str, Any]) -> CachedAnswer | None:
    """The answer of a line, or None if the line is not in our format."""
    types = {"text": str, "tokens": int, "finish": str}
    if fields.keys() != types.keys() or not all(isinstance(fields[name], kind) for name, kind in types.items()):
        return None
    return CachedAnswer(**fields)
