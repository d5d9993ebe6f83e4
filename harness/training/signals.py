"""What a teacher says of a text, as a type: the same objective runs on any of them.

A signal reads a batch once and then hands out pairs (student, teacher) of logits over a common support,
chunk by chunk. For an exact signal the support is the shared vocabulary [N, V]. For a top-k signal it is
K + 1 events (the cached tokens and one bucket with the rest of the mass), so that every divergence stays
non-negative and, by the data-processing inequality, a lower bound of the exact one.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness.models.head import Head, trunk
from harness.training.batching import Batch


class Reading(Protocol):
    """A teacher's view of one batch."""

    def pair(self, logits: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor | None]:
        """Student and teacher logits [n, S] on the support for tokens start:stop; ``logits`` is [n, V]."""


class Signal(Protocol):
    """A source of readings. ``exact`` is False where the support is coarser than the vocabulary."""

    exact: bool

    def read(self, batch: Batch) -> Reading: ...


class NoReading:
    """The reading of methods that ask nothing of the teacher's distribution."""

    def pair(self, logits: Tensor, start: int, stop: int) -> tuple[Tensor, None]:
        return logits, None


class LiveTeacher:
    """The teacher model itself: hidden states once per batch, its head applied to one chunk at a time."""

    exact = True

    def __init__(self, model: PreTrainedModel, vocab: int):
        self.model, self.head = model, Head.of(model, vocab)

    @torch.no_grad()
    def read(self, batch: Batch) -> HiddenReading:
        hidden = trunk(self.model)(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
        return HiddenReading(hidden[batch.row, batch.column], self.head)


class HiddenReading:
    """Hidden states [N, d] and the head that turns them into exact logits."""

    def __init__(self, hidden: Tensor, head: Head):
        self.hidden, self.head = hidden, head

    @torch.no_grad()
    def pair(self, logits: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        return logits, self.head.logits(self.hidden[start:stop])


class TopKReading:
    """K tokens per position, their log-probabilities [N, K], and the log of all remaining mass [N]."""

    def __init__(self, ids: Tensor, log_probs: Tensor, tail: Tensor):
        self.ids, self.log_probs, self.tail = ids, log_probs, tail

    @classmethod
    def of(cls, logits: Tensor, k: int) -> TopKReading:
        """The reading that keeps the k likeliest tokens of exact logits [N, V]."""
        log_probs, ids = logits.float().log_softmax(-1).topk(k, -1)
        return cls(ids, log_probs, _log_rest(log_probs))

    def pair(self, logits: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        chosen = logits.float().log_softmax(-1).gather(-1, self.ids[start:stop])
        student = torch.cat([chosen, _log_rest(chosen)[:, None]], -1)
        return student, torch.cat([self.log_probs[start:stop], self.tail[start:stop, None]], -1)


def _log_rest(log_probs: Tensor) -> Tensor:
    """log(1 - sum exp(log_probs)) [N] of log-probabilities [N, K]; the rest is never below one ulp of 1."""
    rest = -torch.expm1(log_probs.logsumexp(-1).clamp_max(0.0))
    return rest.clamp_min(torch.finfo(rest.dtype).eps).log()
