"""The signal of several teachers: the mixture of their distributions, with separate weights for each row.

log p(v) = logsumexp over k of log w_k + log p_k(v). A row with one teacher gets that teacher's distribution;
teachers of weight 0 do not read it. Top-k signals require one teacher per row: every
teacher keeps other tokens, so their mixture is not defined.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.training.batching import Batch
from harness.training.signal_contract import TeacherSignal
from harness.training.signals import TeacherLogits, TopKLogits

Shares = Callable[[Batch, int], list[float]]  # weights of all teachers in sequence number i of a batch


class MixedSignal(TeacherSignal):
    """Exact signals of several teachers as one. ``shares`` gives the weight of each teacher in a sequence."""

    name = "mixed"

    def __init__(self, signals: Sequence[TeacherSignal], shares: Shares):
        self.signals, self.shares = signals, shares

    def read(self, batch: Batch) -> MixedLogits | TopKLogits:
        parts = []
        # Every teacher reads only the sequences in which it has a weight.
        for signal, rows, weights in self._split(batch):
            own = batch.only(rows)
            index = _tokens_of(batch, rows)
            log_weight = torch.tensor(weights, device=batch.ids.device).log()[own.row]
            parts.append(_Part(signal.read(own), index, log_weight))
        # Top-k rows have one teacher each (the plan refuses mixtures), so they only need to be put in order.
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
    chosen = set(rows)
    return [n for n, row in enumerate(batch.rows) if row in chosen]


def _joined(parts: Sequence[tuple[list[int], TopKLogits]]) -> TopKLogits:
    """Joins top-k signals of disjoint rows, with the numbers of their tokens in the batch."""
    first = parts[0][1]
    order = torch.tensor([n for index, _ in parts for n in index], device=first.ids.device).argsort()
    ids, log_probs = (torch.cat([getattr(p, name) for _, p in parts]) for name in ("ids", "log_probs"))
    return TopKLogits(ids[order], log_probs[order])


@dataclass(frozen=True)
class _Part:
    """One teacher's logits of its own tokens, their numbers in the batch [n], and log w of each [n]."""

    logits: TeacherLogits
    index: list[int]
    log_weight: Tensor

    def within(self, start: int, stop: int) -> tuple[int, int]:
        """The range of its own tokens that are tokens start:stop of the batch."""
        return bisect_left(self.index, start), bisect_left(self.index, stop)


class MixedLogits:
    """log p [n, V] of the mixture, as logits."""

    def __init__(self, parts: Sequence[_Part], device: torch.device):
        self.parts, self.device = parts, device

    @torch.no_grad()
    def pair(self, logits: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        # A running logsumexp over the teachers: log 0 = -inf at first, and one teacher's logits at a time in memory.
        mixed = torch.full(logits.shape, -torch.inf, device=logits.device)
        for part in self.parts:
            low, high = part.within(start, stop)
            if low == high:
                continue
            # The positions of the part's tokens within this slice of the batch.
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
                parts.append(_Part(part.logits.over(low, high), part.index, part.log_weight))
        return MixedLogits(parts, self.device)
