"""The contract of a teacher signal, which turns a batch into the teacher's logits, and the shipped signals.

``training.signal`` names a signal: one that ships, the path of a file, or a plugin's under the entry point group
``harness.signals``. A signal of your own is a class with a ``name``::

    class Softer(TeacherSignal):
        \"\"\"The live teacher at temperature 2.\"\"\"

        name = "softer"

        def read(self, batch):
            hidden, head = self.given.live.hidden(batch), self.given.live.head
            return FullLogits(head.logits(hidden) / 2)

N is the number of response tokens of a batch, V the size of the shared vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from harness.recipe import Training
from harness.training.batching import Batch
from harness.training.served_teacher import ServedTeacher
from harness.training.signals import CachedTeacher, HiddenStateLogits, LiveTeacher, SignalCache, TeacherLogits
from harness.types import Source


@dataclass(frozen=True)
class SignalInputs:
    """What a signal may use. ``caches(kind, k)`` fills and opens a cache for each source of fixed text.

    ``k`` is None for hidden states, else the number of likeliest tokens to keep; ``kind`` enters the cache's key.
    """

    live: LiveTeacher | ServedTeacher
    vocab: int
    training: Training
    caches: Callable[[str, int | None], Mapping[Source, SignalCache]]


class TeacherSignal:
    """Reads the teacher's distribution. Set up once per training run, then asked for every batch."""

    name: ClassVar[str]
    exact: ClassVar[bool] = True  # the whole distribution; methods that need it are refused on an inexact signal
    source: ClassVar[str] = "live"  # where the values for fixed text come from, in the words of the convention card
    served: ClassVar[bool] = False  # whether a teacher behind a server can give it: its likeliest tokens are enough
    takes_top_k: ClassVar[bool] = False  # whether ``training.top_k`` matters; it then enters the training's identity

    def __init__(self, given: SignalInputs):
        self.given = given

    def read(self, batch: Batch) -> TeacherLogits:
        """The teacher's logits for the N response tokens of ``batch``."""
        raise NotImplementedError(f"signal {self.name} has no read(self, batch)")

    def tokens(self, batch: Batch) -> int:
        """Tokens of the batch that go through the teacher model; cached ones do not count."""
        return batch.tokens

    def facts(self) -> dict[str, Any]:
        """What the convention card and the record say of the signal."""
        return {"top_k": None, "cached": []}


class FullLogits:
    """Teacher logits [N, V] that are in memory as a whole, as the reading of a batch."""

    def __init__(self, logits: Tensor):
        self.logits = logits

    def pair(self, logits: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        return logits, self.logits[start:stop]

    def over(self, start: int, stop: int) -> FullLogits:
        return self


class LiveSignal(TeacherSignal):
    """The teacher's own forward pass for every batch."""

    name = "live"

    def read(self, batch: Batch) -> HiddenStateLogits:
        assert isinstance(self.given.live, LiveTeacher), "the plan refuses a served teacher here"
        return self.given.live.read(batch)


class HiddenSignal(TeacherSignal):
    """Exact: hidden states of fixed text from a cache; the student's own text goes through the teacher."""

    name = "hidden"
    source = "hidden states cached"

    def __init__(self, given: SignalInputs):
        super().__init__(given)
        # Caches are filled here, before the first step: the teacher runs once over all fixed text.
        self.k = self._width()
        kind = self.name if self.k is None else f"top-{self.k}"
        self.cached = CachedTeacher(given.caches(kind, self.k), given.live, self.k)

    def _width(self) -> int | None:
        return None

    def read(self, batch: Batch) -> TeacherLogits:
        return self.cached.read(batch)

    def tokens(self, batch: Batch) -> int:
        return self.cached.tokens(batch)

    def facts(self) -> dict[str, Any]:
        caches = self.cached.caches
        about: dict[str, Any] = {"top_k": self.k, "cached": [str(source) for source in caches]}
        # What a user weighs against another signal: the bytes on disk of one response token.
        if caches:
            tokens = {source: sum(cache.lengths) for source, cache in caches.items()}
            stored = sum(cache.bytes_per_token * tokens[source] for source, cache in caches.items())
            about["bytes_per_token"] = round(stored / max(sum(tokens.values()), 1), 1)
        return about


class TopKSignal(HiddenSignal):
    """Inexact: the K likeliest tokens, and one bucket for the remaining mass."""

    name = "top-k"
    source = "cached"
    exact = False
    served = True
    takes_top_k = True

    def _width(self) -> int:
        # A vocabulary smaller than K is kept whole, with an empty bucket.
        return min(self.given.training.top_k, self.given.vocab)
