"""The student with its objective: one forward pass from token ids to a scalar that backward understands.

It is a module so that data-parallel wrappers see the whole computation, head included, in one ``forward``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from harness import method_contract
from harness.losses import cross_entropy
from harness.method import Method, Sequences, Step, Tokens
from harness.models.head import CHUNK_ELEMENTS, Chunk, Head, chunked_sum, chunks, trunk
from harness.training.batching import Batch
from harness.training.signals import TeacherLogits

LONGEST = 4  # chunks: a sequence up to so long is one chunk where a method surveys whole sequences


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
        self, batch: Batch, method: Method, reading: TeacherLogits, step: Step, weights: Tensor | None
    ) -> tuple[Tensor, Sums]:
        """Sum of c_t w_t objective_t over the batch, and what to report. ``weights`` [N] replace the method's.

        Raises NotFinite where the sum of a chunk is no finite number.
        """
        hidden = self._hidden(batch)
        head = Head.of_checked(self.model, self.vocab)
        scale, sums = _per_token(method, batch), Sums()
        # Whole sequences are surveyed inside a chunk; where one is too long, both heads are applied once before.
        inside = method.needs.sequence_features and int(batch.length.max()) * self.vocab <= LONGEST * self.elements
        survey = first = None
        if method.needs.sequence_features and not inside:
            survey, first = self._sequence_features(hidden.detach(), head, batch, method, reading, step), 0

        def enter(raw: Tensor, chunk: Chunk) -> None:
            nonlocal near, survey, first
            near = reading  # the logits of the chunk before are given up first
            near = reading.over(chunk.start, chunk.stop)
            if inside:
                log_probs = _log_probs(_slices(raw, head, chunk), near, batch)
                survey, first = _look(log_probs, batch, method, step, chunk.start, chunk.stop), chunk.start

        def value(logits: Tensor, start: int, stop: int) -> Tensor:
            mine = None if survey is None else survey[start - first : stop - first]
            tokens = _tokens(batch, logits, near, step, start, stop, mine)
            chosen = _weigh(method, tokens) if weights is None else weights[start:stop]
            if method.needs.gate:
                tokens.gate, chosen = chosen, None
            values = method.objective(tokens)
            method_contract.values(method, values, logits)
            method_contract.metrics(method, tokens.metrics, stop - start)
            values = values.float()
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

        near = reading
        total = chunked_sum(hidden, head, self._chunks(batch, whole=inside), value, enter)
        return total, sums

    @torch.no_grad()
    def weigh(self, batch: Batch, method: Method, reading: TeacherLogits, step: Step) -> Tensor:
        """[N] the weights that the method would give: the first pass of the shuffled-weight control."""
        hidden, head, survey, parts = self._hidden(batch), Head.of_checked(self.model, self.vocab), None, []
        if method.needs.sequence_features:
            survey = self._sequence_features(hidden, head, batch, method, reading, step)
        for chunk, raw in self._project(hidden, head, batch):
            near = reading.over(chunk.start, chunk.stop)
            for logits, start, stop in _slices(raw, head, chunk):
                mine = None if survey is None else survey[start:stop]
                weights = _weigh(method, _tokens(batch, logits, near, step, start, stop, mine))
                parts.append(torch.ones(stop - start, device=hidden.device) if weights is None else weights)
        return torch.cat(parts)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch) -> Tensor:
        """[N] log q of the text's tokens, in nats."""
        hidden, head, parts = self._hidden(batch), Head.of_checked(self.model, self.vocab), []
        for chunk, raw in self._project(hidden, head, batch):
            parts += [-cross_entropy(logits, batch.labels[a:b]) for logits, a, b in _slices(raw, head, chunk)]
        return torch.cat(parts)

    @torch.no_grad()
    def _sequence_features(
        self, hidden: Tensor, head: Head, batch: Batch, method: Method, reading: TeacherLogits, step: Step
    ) -> Tensor:
        """[N, ...] what the method makes of the whole sequences, through both heads once more."""
        parts = []
        for chunk, raw in self._project(hidden, head, batch):
            near = reading.over(chunk.start, chunk.stop)
            parts.append(_log_probs(_slices(raw, head, chunk), near, batch))
        return _look(torch.cat(parts, 1), batch, method, step, 0, len(batch.labels))

    def _project(self, hidden: Tensor, head: Head, batch: Batch) -> Iterator[tuple[Chunk, Tensor]]:
        """Chunk after chunk with its unfinished logits."""
        for chunk in self._chunks(batch):
            yield chunk, head.raw(hidden[chunk.start : chunk.stop])

    def _chunks(self, batch: Batch, whole: bool = False) -> list[Chunk]:
        """``whole``: no chunk cuts a sequence."""
        rows = batch.row.tolist() if whole else None
        return chunks(batch.segment_list, self.vocab, self.elements, batch.row.device.type, rows)

    def _hidden(self, batch: Batch) -> Tensor:
        """[N, d] the hidden states that predict the response tokens."""
        states = trunk(self.model)(input_ids=batch.ids, attention_mask=batch.mask, use_cache=False).last_hidden_state
        return states[batch.row, batch.column]


def _slices(raw: Tensor, head: Head, chunk: Chunk) -> Iterator[tuple[Tensor, int, int]]:
    """The finished logits of a chunk, slice by slice."""
    for start, stop in chunk.slices:
        yield head.finish(raw[start - chunk.start : stop - chunk.start]), start, stop


@torch.no_grad()
def _log_probs(slices: Iterator[tuple[Tensor, int, int]], reading: TeacherLogits, batch: Batch) -> Tensor:
    """[2, N] log q and log p of the text's tokens."""
    parts = []
    for logits, start, stop in slices:
        pair = reading.pair(logits, start, stop)
        parts.append(torch.stack([-cross_entropy(z, batch.labels[start:stop]) for z in pair]))
    return torch.cat(parts, 1)


@torch.no_grad()
def _look(log_probs: Tensor, batch: Batch, method: Method, step: Step, start: int, stop: int) -> Tensor:
    """[n, ...] the method's survey of the whole sequences that tokens [start, stop) are."""
    here, (log_q, log_p) = slice(start, stop), log_probs
    first, last = int(batch.row[start]), int(batch.row[stop - 1])
    found = method.sequence_features(
        Sequences(
            log_p=log_p,
            log_q=log_q,
            sampler_log_prob=None if batch.sampler_log_prob is None else batch.sampler_log_prob[here],
            sequence=batch.row[here] - first,
            position=batch.position[here],
            length=batch.length[here],
            source=batch.sources[first : last + 1],
            step=step,
        )
    )
    method_contract.sequence_features(method, found, stop - start)
    return found


def _per_token(method: Method, batch: Batch) -> Tensor:
    """[N] c_t of the method's reduction, see :mod:`harness.method`."""
    if method.reduction == "sequence":
        return 1.0 / batch.length.float()
    if method.reduction == "source":
        return torch.tensor([1.0 / batch.source_tokens[s] for s in batch.sources], device=batch.row.device)[batch.row]
    return torch.ones_like(batch.length, dtype=torch.float32)


def _tokens(
    batch: Batch,
    logits: Tensor,
    reading: TeacherLogits,
    step: Step,
    start: int,
    stop: int,
    sequence_features: Tensor | None,
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
        segment_id=batch.segment_id[here] - batch.segment_list[start],
        source=batch.sources,
        sampler_log_prob=None if batch.sampler_log_prob is None else batch.sampler_log_prob[here],
        validity=None if batch.validity is None else batch.validity[here],
        step=step,
        sequence_features=survey,
    )


def _weigh(method: Method, tokens: Tokens) -> Tensor | None:
    with torch.no_grad():
        weights = method.weight(tokens)
    method_contract.weights(method, weights, len(tokens.labels))
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
