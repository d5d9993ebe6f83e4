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

import copy
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness.recipe import Training
from harness.training.batching import Batch
from harness.training.served_teacher import ServedTeacher
from harness.training.signals import (
    CachedTeacher,
    HiddenStateLogits,
    LiveTeacher,
    SignalCache,
    TeacherLogits,
    TopKLogits,
)
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


# The signal of several teachers: the mixture of their distributions, each row with weights of its own.
#
# log p(v) = logsumexp over k of log w_k + log p_k(v). A row that one teacher has alone is that teacher's
# distribution; teachers of weight 0 do not read it. Of top-k signals only rows that have one teacher each are known:
# every teacher keeps other tokens, so a mixture of theirs is not.

TeacherShares = Callable[[Batch, int], list[float]]  # of every teacher in sequence number i of a batch


class MixedSignal(TeacherSignal):
    """Exact signals of several teachers as one. ``shares`` gives the weight of each teacher in a sequence."""

    name = "mixed"

    def __init__(self, signals: Sequence[TeacherSignal], shares: TeacherShares):
        self.signals, self.shares = signals, shares

    def read(self, batch: Batch) -> MixedLogits | TopKLogits:
        parts = []
        # Every teacher reads only the sequences in which it has a weight.
        for signal, rows, weights in self._split(batch):
            own = batch.only(rows)
            index = _tokens_of(batch, rows)
            log_weight = torch.tensor(weights, device=batch.ids.device).log()[own.row]
            parts.append(_Share(signal.read(own), index, log_weight))
        # Top-k rows have one teacher each (the plan refuses a mixture of them), so they only have to be put in order.
        likeliest = [(part.index, part.logits) for part in parts if isinstance(part.logits, TopKLogits)]
        return _joined(likeliest) if likeliest else MixedLogits(parts, batch.ids.device)

    def tokens(self, batch: Batch) -> int:
        return sum(signal.tokens(batch.only(rows)) for signal, rows, _ in self._split(batch))

    def facts(self) -> dict[str, Any]:
        return self.signals[0].facts()

    def _split(self, batch: Batch) -> list[tuple[TeacherSignal, list[int], list[float]]]:
        """Each teacher with the sequences that it reads and its weights in them."""
        shares = [self.shares(batch, i) for i in range(len(batch.sources))]
        split = []
        for k, signal in enumerate(self.signals):
            rows = [i for i, share in enumerate(shares) if share[k] > 0]
            if rows:
                split.append((signal, rows, [shares[i][k] for i in rows]))
        return split


def _tokens_of(batch: Batch, rows: list[int]) -> list[int]:
    """The numbers of the response tokens of some sequences, ascending."""
    wanted = set(rows)
    return [n for n, row in enumerate(batch.rows) if row in wanted]


def _joined(parts: Sequence[tuple[list[int], TopKLogits]]) -> TopKLogits:
    """Top-k signals of other rows each, with the numbers of their tokens in the batch, as one."""
    first = parts[0][1]
    order = torch.tensor([n for index, _ in parts for n in index], device=first.ids.device).argsort()
    ids, log_probs = (torch.cat([getattr(p, name) for _, p in parts]) for name in ("ids", "log_probs"))
    return TopKLogits(ids[order], log_probs[order])


@dataclass(frozen=True)
class _Share:
    """One teacher's logits of its own tokens, which numbers these have in the batch [n], and log w of each [n]."""

    logits: TeacherLogits
    index: list[int]
    log_weight: Tensor

    def within(self, start: int, stop: int) -> tuple[int, int]:
        """Which of its own tokens are tokens start:stop of the batch."""
        return bisect_left(self.index, start), bisect_left(self.index, stop)


class MixedLogits:
    """log p [n, V] of the mixture, as logits."""

    def __init__(self, parts: Sequence[_Share], device: torch.device):
        self.parts, self.device = parts, device

    @torch.no_grad()
    def pair(self, logits: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        # A running logsumexp over the teachers: log 0 = -inf at first, and one teacher's logits at a time in memory.
        mixed = torch.full(logits.shape, -torch.inf, device=logits.device)
        for part in self.parts:
            low, high = part.within(start, stop)
            if low == high:
                continue
            # Where the part's tokens stand within this slice of the batch.
            rows = torch.tensor(part.index[low:high], device=logits.device) - start
            _, own = part.logits.pair(logits[rows], low, high)
            assert own is not None, "a teacher has a distribution"
            # In float32: bfloat16 has three digits, and a mixture adds probabilities of very different size.
            log_p = own.float().log_softmax(-1) + part.log_weight[low:high, None]
            mixed[rows] = torch.logaddexp(mixed[rows], log_p)
        return logits, mixed

    def over(self, start: int, stop: int) -> MixedLogits:
        parts = []
        for part in self.parts:
            low, high = part.within(start, stop)
            if low < high:
                parts.append(_Share(part.logits.over(low, high), part.index, part.log_weight))
        return MixedLogits(parts, self.device)


# A student that teaches itself: as it is at this step, or as a moving average of its steps.


class SelfTeacher(LiveTeacher):
    """The student as it is at this step, without gradient and without dropout."""

    @torch.no_grad()
    def hidden(self, batch: Batch, rows: list[int] | None = None) -> Tensor:
        training = self.model.training
        self.model.eval()
        try:
            return super().hidden(batch, rows)
        finally:
            self.model.train(training)


class MovingTeacher:
    """An exponential moving average of the student: theta <- decay theta + (1 - decay) student, after every step."""

    def __init__(self, student: PreTrainedModel, decay: float):
        self.student, self.decay = student, decay
        self.model = copy.deepcopy(student).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self) -> None:
        for mine, theirs in zip(self.model.parameters(), self.student.parameters(), strict=True):
            mine.lerp_(theirs.to(mine.dtype), 1 - self.decay)

    def state(self) -> dict[str, Any]:
        """The weights, for a checkpoint."""
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def load(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state)
