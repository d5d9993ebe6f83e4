"""The student with its objective: one forward pass from token ids to a scalar that backward understands.

It is a module so that data-parallel wrappers see the whole computation, head included, in one ``forward``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from harness.losses import cross_entropy
from harness.method import Method, Sequences, Step, Tokens
from harness.models.head import CHUNK_ELEMENTS, Head, chunked_sum, cut, trunk
from harness.training.batching import Batch
from harness.training.signals import Reading


class NotFinite(ArithmeticError):
    """A value that is no number; the message says which tensor it came from, and where."""


@dataclass
class Sums:
    """What a micro-batch adds to the step: sums over its tokens, on the device, without gradient."""

    value: Tensor | float = 0.0  # sum of c w objective
    weight: Tensor | float = 0.0  # sum of c w
    scale: Tensor | float = 0.0  # sum of c
    metrics: dict[str, Tensor] = field(default_factory=dict)  # sums of c * metric


class Student(nn.Module):
    """The model in training and its head. ``elements`` bounds the logits of one chunk."""

    def __init__(self, model: PreTrainedModel, vocab: int, elements: int = CHUNK_ELEMENTS):
        super().__init__()
        self.model, self.elements = model, elements
        self.vocab = Head.of(model, vocab).vocab

    def forward(
        self, batch: Batch, method: Method, reading: Reading, step: Step, weights: Tensor | None
    ) -> tuple[Tensor, Sums]:
        """Sum of c_t w_t objective_t over the batch, and what to report. ``weights`` [N] replace the method's.

        Raises NotFinite where the sum of a chunk is no finite number.
        """
        hidden = self._hidden(batch)
        head = Head.of_checked(self.model, self.vocab)
        scale, sums = _per_token(method, batch), Sums()
        survey = self._survey(hidden.detach(), head, batch, method, reading, step)

        def value(logits: Tensor, start: int, stop: int) -> Tensor:
            tokens = _tokens(batch, logits, reading, step, start, stop, survey)
            chosen = _weigh(method, tokens) if weights is None else weights[start:stop]
            if method.needs.gate:
                tokens.gate, chosen = chosen, None
            values = method.objective(tokens).float()
            factor = scale[start:stop] if chosen is None else scale[start:stop] * chosen
            total = (factor * values).sum()
            if not torch.isfinite(total):
                raise NotFinite(_culprit(tokens, values))
            sums.value += total.detach()
            sums.weight += factor.sum()
            sums.scale += scale[start:stop].sum()
            for name, metric in tokens.metrics.items():
                sums.metrics[name] = sums.metrics.get(name, 0.0) + (scale[start:stop] * metric.detach()).sum()
            return total

        total = chunked_sum(hidden, head, cut(batch.step_list, self.vocab, self.elements), value)
        return total, sums

    @torch.no_grad()
    def weigh(self, batch: Batch, method: Method, reading: Reading, step: Step) -> Tensor:
        """[N] the weights that the method would give: the first pass of the shuffled-weight control."""
        hidden, head = self._hidden(batch), Head.of_checked(self.model, self.vocab)
        survey = self._survey(hidden, head, batch, method, reading, step)
        parts = []
        for start, stop in cut(batch.step_list, self.vocab, self.elements):
            tokens = _tokens(batch, head.logits(hidden[start:stop]), reading, step, start, stop, survey)
            weights = _weigh(method, tokens)
            parts.append(torch.ones(stop - start, device=hidden.device) if weights is None else weights)
        return torch.cat(parts)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch) -> Tensor:
        """[N] log q of the text's tokens, in nats."""
        hidden, head = self._hidden(batch), Head.of_checked(self.model, self.vocab)
        bounds = cut(batch.step_list, self.vocab, self.elements)
        return torch.cat([-cross_entropy(head.logits(hidden[a:b]), batch.labels[a:b]) for a, b in bounds])

    @torch.no_grad()
    def _survey(
        self, hidden: Tensor, head: Head, batch: Batch, method: Method, reading: Reading, step: Step
    ) -> Tensor | None:
        """[N, ...] what the method makes of the whole sequences, chunk by chunk through both heads once more."""
        if not method.needs.survey:
            return None
        parts = []
        for start, stop in cut(batch.step_list, self.vocab, self.elements):
            pair = reading.pair(head.logits(hidden[start:stop]), start, stop)
            parts.append(torch.stack([-cross_entropy(z, batch.labels[start:stop]) for z in pair]))
        log_q, log_p = torch.cat(parts, 1)
        return method.survey(
            Sequences(
                log_p=log_p,
                log_q=log_q,
                sampler_log_prob=batch.sampler_log_prob,
                sequence=batch.row,
                position=batch.position,
                length=batch.length,
                source=batch.sources,
                step=step,
            )
        )

    def _hidden(self, batch: Batch) -> Tensor:
        """[N, d] the hidden states that predict the response tokens."""
        states = trunk(self.model)(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).last_hidden_state
        return states[batch.row, batch.column]


def _per_token(method: Method, batch: Batch) -> Tensor:
    """[N] c_t of the method's reduction, see :mod:`harness.method`."""
    if method.reduction == "sequence":
        return 1.0 / batch.length.float()
    if method.reduction == "source":
        return torch.tensor([1.0 / batch.source_tokens[s] for s in batch.sources], device=batch.row.device)[batch.row]
    return torch.ones_like(batch.length, dtype=torch.float32)


def _tokens(
    batch: Batch, logits: Tensor, reading: Reading, step: Step, start: int, stop: int, survey: Tensor | None
) -> Tokens:
    student, teacher = reading.pair(logits, start, stop)
    here = slice(start, stop)
    return Tokens(
        logits=logits,
        labels=batch.labels[here],
        student=student,
        teacher=teacher,
        sequence=batch.row[here],
        position=batch.position[here],
        length=batch.length[here],
        step_id=batch.step_id[here] - batch.step_list[start],
        source=batch.sources,
        sampler_log_prob=None if batch.sampler_log_prob is None else batch.sampler_log_prob[here],
        validity=None if batch.validity is None else batch.validity[here],
        step=step,
        survey=None if survey is None else survey[here],
    )


def _weigh(method: Method, tokens: Tokens) -> Tensor | None:
    with torch.no_grad():
        weights = method.weight(tokens)
    return None if weights is None else weights.float()


def _culprit(tokens: Tokens, values: Tensor) -> str:
    """Which tensor stopped being a number first, and where."""
    suspects: list[tuple[str, Tensor | None]] = [
        ("student logits", tokens.logits),
        ("teacher logits", tokens.teacher),
        ("objective", values),
    ]
    # A logit of -inf is a masked token; no other number may be infinite.
    bad: Callable[[Tensor], Tensor] = lambda t: t.isnan() | (t == torch.inf) if t.dim() > 1 else ~t.isfinite()  # noqa: E731
    for name, tensor in suspects:
        if tensor is not None and bad(tensor).any():
            where = bad(tensor).reshape(len(tensor), -1).any(1).nonzero()[0].item()
            return f"the {name} became NaN or infinite at token {where} of sequence {int(tokens.sequence[where])}"
    return "the weights of the tokens became NaN or infinite"
