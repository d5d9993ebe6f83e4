"""The contract of a teacher signal: what turns a batch into the teacher's logits.

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
from harness.training.signal_cache import SignalCache
from harness.training.signals import LiveTeacher, TeacherLogits
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
