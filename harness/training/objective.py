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
from harness.models import CHUNK_ELEMENTS, devices
from harness.models.head import Chunk, Head, chunked_sum, chunks, trunk
from harness.training.batching import Batch
from harness.training.signals import TeacherLogits
from harness.types import Source

LONGEST = 4  # in chunks: the maximum length of a sequence that becomes one chunk, for methods with sequence features


class NotFinite(ArithmeticError):
    """A NaN or infinite value; the message names the tensor and the token."""


@dataclass
class Sums:
    """The contribution of a micro-batch to the step: sums over its tokens, on the device, without gradient."""

    value: Tensor | float = 0.0  # sum of c w objective
    weight: Tensor | float = 0.0  # sum of c w
    scale: Tensor | float = 0.0  # sum of c
    metrics: dict[str, Tensor] = field(default_factory=dict)  # sums of c * metric
    by_source: dict[Source, tuple[Tensor, Tensor]] = field(default_factory=dict)  # value and weight of each source
    weights: list[Tensor] = field(default_factory=list)  # [n] the method's own, slice by slice


class Student(nn.Module):
    """The model in training and its head. ``elements`` bounds the logits of one chunk."""

    def __init__(self, model: PreTrainedModel, vocab: int, elements: int = CHUNK_ELEMENTS):
        super().__init__()
        self.model, self.elements = model, elements
        self.vocab = Head.of(model, vocab).vocab

    def forward(
        self, batch: Batch, method: Method, teacher: TeacherLogits, step: Step, weights: Tensor | None
    ) -> tuple[Tensor, Sums]:
        """Sum of c_t w_t objective_t over the batch, and the values to report. ``weights`` [N] replace the method's.

        Raises NotFinite if the sum of a slice is not a finite number.
        """
        hidden, head = self._hidden(batch), self._head()
        # Sequence features need log-probabilities of whole sequences before the first objective value. If every
        # sequence fits into a chunk they are computed inside it and each head is applied once; longer sequences
        # take a pass of their own through both heads.
        needed = method.needs.sequence_features
        inside = needed and max(batch.counts) * self.vocab <= LONGEST * self.elements
        features = None
        if needed and not inside:
            features = self._sequence_features(hidden.detach(), head, batch, method, teacher, step)
        objective = _Objective(batch, method, teacher, step, head, weights, features, inside)
        bounds = self._chunks(batch, method, whole=inside)
        total = chunked_sum(hidden, head, bounds, objective.value, objective.start_chunk)
        # A slice that is not finite makes the total so. Checking once lets the device run ahead of the host.
        sound = torch.isfinite(total)
        if weights is None and objective.sums.weights:
            weights_used = torch.cat(objective.sums.weights)
            sound = sound & (weights_used >= 0).all() & weights_used.isfinite().all()
        if not sound:
            with torch.no_grad():
                chunked_sum(hidden.detach(), head, bounds, objective.checked, objective.start_chunk)
            raise NotFinite("the sum of the objective became infinite, though every part of it is finite")
        return total, objective.sums

    @torch.no_grad()
    def token_weights(self, batch: Batch, method: Method, teacher: TeacherLogits, step: Step) -> Tensor:
        """[N] the method's weights: the first pass of the shuffled-weight control."""

        def weights(tokens: Tokens) -> Tensor:
            weighed = _weigh(method, tokens)
            return torch.ones(len(tokens.labels), device=batch.row.device) if weighed is None else weighed

        weighed = self._of_tokens(batch, method, teacher, step, weights)
        method_contract.weights(method, weighed, len(weighed))
        return weighed

    @torch.no_grad()
    def measure(self, batch: Batch, method: Method, teacher: TeacherLogits, step: Step) -> Tensor:
        """[N, k] the method's measurements of every token, before its step features."""
        return self._of_tokens(batch, method, teacher, step, lambda tokens: _measured(method, tokens))

    def _of_tokens(
        self,
        batch: Batch,
        method: Method,
        teacher: TeacherLogits,
        step: Step,
        what: Callable[[Tokens], Tensor],
    ) -> Tensor:
        """[N, ...] ``what`` of all tokens, slice by slice, without gradient."""
        hidden, head, features, parts = self._hidden(batch), self._head(), None, []
        if method.needs.sequence_features:
            features = self._sequence_features(hidden, head, batch, method, teacher, step)
        for chunk, raw in self._project(hidden, head, batch, method):
            # Project the teacher per chunk too, so that its logits [N, V] never exist at once.
            chunk_teacher = teacher.over(chunk.start, chunk.stop)
            for logits, start, stop in _slices(raw, head, chunk):
                here = None if features is None else features[start:stop]
                parts.append(what(_tokens(batch, logits, chunk_teacher, step, start, stop, here)))
        return torch.cat(parts)

    @torch.no_grad()
    def log_likelihood(self, batch: Batch) -> Tensor:
        """[N] log q of the text's tokens, in nats."""
        hidden, head, parts = self._hidden(batch), self._head(), []
        for chunk, raw in self._project(hidden, head, batch):
            parts += [-cross_entropy(logits, batch.labels[a:b]) for logits, a, b in _slices(raw, head, chunk)]
        return torch.cat(parts)

    @torch.no_grad()
    def on_support(self, batch: Batch, teacher: TeacherLogits, value: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """[N] ``value`` of the student's and the teacher's logits [n, S] on the support they share."""
        hidden, head, parts = self._hidden(batch), self._head(), []
        for chunk, raw in self._project(hidden, head, batch):
            chunk_teacher = teacher.over(chunk.start, chunk.stop)
            for logits, start, stop in _slices(raw, head, chunk):
                own, theirs = chunk_teacher.pair(logits, start, stop)
                assert theirs is not None, "the teacher's logits have been read"
                parts.append(value(own, theirs))
        return torch.cat(parts)

    @torch.no_grad()
    def _sequence_features(
        self, hidden: Tensor, head: Head, batch: Batch, method: Method, teacher: TeacherLogits, step: Step
    ) -> Tensor:
        """[N, ...] the method's features of whole sequences, from an extra pass through both heads."""
        parts = []
        for chunk, raw in self._project(hidden, head, batch):
            chunk_teacher = teacher.over(chunk.start, chunk.stop)
            parts.append(_log_probs(_slices(raw, head, chunk), chunk_teacher, batch))
        return _features(torch.cat(parts, 1), batch, method, step, 0, len(batch.labels))

    def _project(
        self, hidden: Tensor, head: Head, batch: Batch, method: Method | None = None
    ) -> Iterator[tuple[Chunk, Tensor]]:
        """Each chunk with its raw logits [n, V], before scale and soft cap."""
        for chunk in self._chunks(batch, method):
            yield chunk, head.raw(hidden[chunk.start : chunk.stop])

    def _chunks(self, batch: Batch, method: Method | None, whole: bool = False) -> list[Chunk]:
        """``whole``: no chunk cuts a sequence, nor does a slice if the weights of ``method`` need whole texts."""
        uncut = method is not None and method.needs.whole
        # A chunk holds the logits of both sides; the teacher's are wider if it has a larger vocabulary or more tokens.
        vocab = self.vocab if batch.pairs is None else max(self.vocab, batch.pairs.width)
        rows = batch.rows if whole or uncut else None
        pieces = rows if uncut and rows is not None else batch.segment_list
        return chunks(pieces, vocab, self.elements, batch.row.device.type, rows)

    def _hidden(self, batch: Batch) -> Tensor:
        """[N, d] the hidden states that predict the response tokens."""
        mask = devices.padding_mask(batch.mask)
        states = trunk(self.model)(input_ids=batch.ids, attention_mask=mask, use_cache=False).last_hidden_state
        return states[batch.row, batch.column]

    def _head(self) -> Head:
        """Read at every pass, because FSDP swaps the weight between its shard and the gathered tensor."""
        return Head.of_checked(self.model, self.vocab)


class _Objective:
    """The callbacks of :func:`chunked_sum` for every chunk and slice of a batch; accumulates ``sums``."""

    def __init__(
        self,
        batch: Batch,
        method: Method,
        teacher: TeacherLogits,
        step: Step,
        head: Head,
        weights: Tensor | None,
        features: Tensor | None,
        inside: bool | None,
    ):
        self.batch, self.method, self.teacher, self.step, self.head = batch, method, teacher, step, head
        self.weights, self.features, self.inside = weights, features, inside
        self.first = 0  # the token of row 0 of ``features``
        self.chunk_teacher = teacher  # the teacher's logits of the current chunk
        self.scale, self.sums, self.naming = _per_token(method, batch), Sums(), False
        several = sorted(set(batch.sources)) if len(set(batch.sources)) > 1 else []
        self.of_source = {
            source: torch.tensor([one is source for one in batch.sources], device=batch.row.device)[batch.row]
            for source in several
        }  # [N] for each

    def start_chunk(self, raw: Tensor, chunk: Chunk) -> None:
        """Fetches the teacher's logits of a chunk, and the features of its sequences. ``raw`` are logits [n, V]."""
        # Free the previous chunk's teacher logits before allocating the next.
        self.chunk_teacher = self.teacher
        self.chunk_teacher = self.teacher.over(chunk.start, chunk.stop)
        if self.inside:
            log_probs = _log_probs(_slices(raw, self.head, chunk), self.chunk_teacher, self.batch)
            self.features = _features(log_probs, self.batch, self.method, self.step, chunk.start, chunk.stop)
            self.first = chunk.start

    def value(self, logits: Tensor, start: int, stop: int) -> Tensor:
        """Sum of c w objective over tokens [start, stop), whose student logits [n, V] carry the gradient."""
        method, scale = self.method, self.scale[start:stop]
        slice_features = None if self.features is None else self.features[start - self.first : stop - self.first]
        # The weights: given ones replace the method's in the second pass of the shuffled-weight control.
        tokens = _tokens(self.batch, logits, self.chunk_teacher, self.step, start, stop, slice_features)
        weights = _weigh(method, tokens, self.naming) if self.weights is None else self.weights[start:stop]
        if weights is not None:
            self.sums.weights.append(weights.detach())
        # A gate multiplies nothing here: the objective reads it, and the mean is not divided by it.
        if method.needs.gate:
            tokens.gate, weights = weights, None
        with method_contract.unchanged(method, "objective", tokens):
            values = method.objective(tokens)
        method_contract.values(method, values, logits)
        method_contract.metrics(method, tokens.metrics, stop - start)
        if tokens.pairs is not None:
            tokens.metrics["paired"] = (tokens.pairs.student >= 0).float()
        # The sum of c_t w_t l_t, in fp32. The loop divides by the sum over all processes.
        values = values.float()
        # Text sampled by an engine: measure the gap between its probabilities and the student's, and correct for it.
        if self.batch.gap is not None and self.batch.sampler_log_prob is not None and self.batch.fresh is not None:
            here = slice(start, stop)
            sampler, fresh = self.batch.sampler_log_prob[here], self.batch.fresh[here]
            corrected = self.batch.gap.weights(logits.detach(), self.batch.labels[here], sampler, fresh)
            values = values if corrected is None else values * corrected
        factor = scale if weights is None else scale * weights
        total = (factor * values).sum()
        if self.naming and not torch.isfinite(total):
            raise NotFinite(_culprit(tokens, values))
        self.sums.value += total.detach()
        self.sums.weight += factor.sum()
        self.sums.scale += scale.sum()
        self._add_by_source((factor * values).detach(), factor, start, stop)
        for name, metric in tokens.metrics.items():
            self.sums.metrics[name] = self.sums.metrics.get(name, 0.0) + (scale * metric.detach()).sum()
        return total

    def checked(self, logits: Tensor, start: int, stop: int) -> Tensor:
        """:meth:`value` again, raising an error that names the tensor that is not finite, or the invalid weight."""
        self.naming = True
        return self.value(logits, start, stop)

    def _add_by_source(self, values: Tensor, factor: Tensor, start: int, stop: int) -> None:
        """Splits the sums of tokens [start, stop) by who wrote them."""
        for source in set(self.batch.sources):
            if len(set(self.batch.sources)) == 1:
                parts = values.sum(), factor.sum()
            else:
                mine = self.of_source[source][start:stop]
                parts = (values * mine).sum(), (factor * mine).sum()
            before = self.sums.by_source.get(source, (0.0, 0.0))
            self.sums.by_source[source] = before[0] + parts[0], before[1] + parts[1]


def _slices(raw: Tensor, head: Head, chunk: Chunk) -> Iterator[tuple[Tensor, int, int]]:
    """The logits of a chunk, slice by slice, with scale and soft cap applied."""
    for start, stop in chunk.slices:
        yield head.finish(raw[start - chunk.start : stop - chunk.start]), start, stop


@torch.no_grad()
def _log_probs(slices: Iterator[tuple[Tensor, int, int]], teacher: TeacherLogits, batch: Batch) -> Tensor:
    """[2, N] log q and log p of the text's tokens."""
    parts = []
    for logits, start, stop in slices:
        student_logits, teacher_logits = teacher.pair(logits, start, stop)
        assert teacher_logits is not None, "sequence features need the teacher's signal"
        both, labels = (student_logits, teacher_logits), batch.labels[start:stop]
        parts.append(torch.stack([-cross_entropy(z, labels) for z in both]))
    return torch.cat(parts, 1)


@torch.no_grad()
def _features(log_probs: Tensor, batch: Batch, method: Method, step: Step, start: int, stop: int) -> Tensor:
    """[n, ...] the method's features of the whole sequences that tokens [start, stop) make up."""
    # The tokens are those of whole sequences; number these from 0, because the method sees no others.
    here, (log_q, log_p), rows = slice(start, stop), log_probs, batch.rows
    first, last = rows[start], rows[stop - 1]
    sequences = Sequences(
        log_p=log_p,
        log_q=log_q,
        sampler_log_prob=None if batch.sampler_log_prob is None else batch.sampler_log_prob[here],
        sequence=batch.row[here] - first,
        position=batch.position[here],
        length=batch.length[here],
        source=batch.sources[first : last + 1],
        step=step,
    )
    with method_contract.unchanged(method, "sequence_features", sequences):
        features = method.sequence_features(sequences)
    method_contract.features(method, "sequence_features", features, stop - start)
    return features


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
    teacher: TeacherLogits,
    step: Step,
    start: int,
    stop: int,
    features: Tensor | None,
) -> Tokens:
    student_logits, teacher_logits = teacher.pair(logits, start, stop)
    here = slice(start, stop)
    return Tokens(
        logits=logits,
        labels=batch.labels[here],
        student=student_logits,
        teacher=teacher_logits,
        sequence=batch.row[here],
        position=batch.position[here],
        length=batch.length[here],
        segment_id=batch.segment_id[here] - batch.segment_list[start],
        source=batch.sources,
        sampler_log_prob=None if batch.sampler_log_prob is None else batch.sampler_log_prob[here],
        validity=None if batch.validity is None else batch.validity[here],
        step=step,
        sequence_features=features,
        step_features=None if batch.step_features is None else batch.step_features[here],
        special=None if batch.special is None else batch.special[here],
        pairs=None if batch.pairs is None else batch.pairs.within(start, stop),
        reference_log_prob=None if batch.reference_log_prob is None else batch.reference_log_prob[here],
        informed=torch.tensor(batch.informed, device=batch.row.device)[batch.row[here]],
    )


def _weigh(method: Method, tokens: Tokens, checked: bool = False) -> Tensor | None:
    """[n] the method's weights in fp32, without gradient, or None if it weights all tokens equally.

    Their values are checked if ``checked``: once for a whole batch, not slice by slice.
    """
    with torch.no_grad(), method_contract.unchanged(method, "weight", tokens):
        weights = method.weight(tokens)
    method_contract.weights(method, weights, len(tokens.labels), values=checked)
    return None if weights is None else weights.float()


def _measured(method: Method, tokens: Tokens) -> Tensor:
    """[n, k] the method's measurements of every token of a slice, in fp32."""
    with method_contract.unchanged(method, "measure", tokens):
        measured = method.measure(tokens)
    method_contract.features(method, "measure", measured, len(tokens.labels))
    return measured.float()


def _culprit(tokens: Tokens, values: Tensor) -> str:
    """Names the first tensor with a NaN or an infinity, and the token."""
    suspects: list[tuple[str, Tensor | None]] = [
        ("student logits", tokens.logits),
        ("teacher logits", tokens.teacher),
        ("objective", values),
    ]
    # A logit of -inf is a masked token; no other number may be infinite.
    bad: Callable[[Tensor], Tensor] = lambda t: t.isnan() | (t == torch.inf) if t.dim() > 1 else ~t.isfinite()  # noqa: E731
    for name, tensor in suspects:
        if tensor is not None and bad(tensor).any():
            where = int(bad(tensor).reshape(len(tensor), -1).any(1).nonzero()[0])
            own = tokens.sequence if tokens.pairs is None or tensor is not tokens.teacher else tokens.pairs.sequence
            return f"the {name} became NaN or infinite at token {where} of sequence {int(own[where])}"
    return "the weights of the tokens became NaN or infinite"
