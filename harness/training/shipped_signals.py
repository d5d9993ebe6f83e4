"""The teacher signals that ship: live, cached hidden states, cached top-k."""

from __future__ import annotations

from typing import Any

from harness.training.batching import Batch
from harness.training.signal_contract import SignalInputs, TeacherSignal
from harness.training.signals import CachedTeacher, HiddenStateLogits, LiveTeacher, TeacherLogits


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
        return min(self.given.training.top_k, self.given.vocab)
