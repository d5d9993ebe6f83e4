"""Generations kept by content, so that no text is ever made twice: a killed run goes on, grading again is free.

A text is named by all that decides it: the weights and tokenizer files with the chat template (one journal each),
the rendered prompt, the decoding, and the seed of its row, which is made of run seed, task, problem and sample
index. Greedy text of a model in this process has no seed: every run, seed and task shares it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.cache_file import CacheFile, digest
from harness.types import Decoding

PIECE = 4  # batches between two writes to disk


@dataclass(frozen=True)
class CachedAnswer:
    """A completion: its ``tokens`` are the model's own count, ``finish`` is stop or length."""

    text: str
    tokens: int
    finish: str


class CachedGenerator:
    """A generator that asks ``inner`` only for what is not kept in ``folder``.

    Where ``inner`` hands over each text as it comes (``each``), each is kept at once, else every few batches.

    ``identity`` is everything about the model that decides its text. ``seeded``: whether greedy text may differ
    from seed to seed, as a server's may. ``fresh``: ask for everything once more, and keep that.
    """

    def __init__(
        self, inner: Any, folder: Path, identity: Mapping[str, Any], *, seeded: bool = False, fresh: bool = False
    ):
        self.inner, self.seeded = inner, seeded
        self._journal = CacheFile(folder, identity)
        self._answers: dict[str, CachedAnswer] = {}
        for key, fields in self._journal.read():
            answer = _answer(fields)
            if answer is not None and not fresh:
                self._answers[key] = answer
        self.reused = 0  # answers given so far that were not made for it

    def __getattr__(self, name: str) -> Any:
        """Whatever else a generator offers is that of ``inner``."""
        return getattr(self.inner, name)

    def generate(
        self,
        texts: Sequence[str],
        decoding: Decoding,
        seeds: Sequence[int],
        progress: Callable[[int], None] = lambda rows: None,
    ) -> list[CachedAnswer]:
        """One continuation of each rendered text, in order; what is new is on disk when it is returned."""
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
        self._journal.add({key: asdict(answer) for key, answer in answers.items()})
        self._answers |= answers

    def _key(self, text: str, decoding: Decoding, seed: int) -> str:
        settings = {k: v for k, v in asdict(decoding).items() if k != "samples"}
        sown = self.seeded or decoding.temperature > 0
        return digest([text, settings, seed if sown else None])


def _answer(fields: Mapping[str, Any]) -> CachedAnswer | None:
    """The answer of a line, None where the line is none of ours."""
    types = {"text": str, "tokens": int, "finish": str}
    if fields.keys() != types.keys() or not all(isinstance(fields[name], kind) for name, kind in types.items()):
        return None
    return CachedAnswer(**fields)
