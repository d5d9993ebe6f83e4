"""Our side and the naive one of the `loss` benchmark, for any method: models that consist of an output layer only.

The tests use it at small sizes to check that both sides agree for every registered method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from harness.losses import cross_entropy
from harness.method import Method, Sequences, Step
from harness.models.head import Head
from harness.options import build
from harness.training import objective
from harness.training.batching import Batch, TrainingSequence, collate
from harness.training.objective import Student, Sums
from harness.training.signals import HiddenStateLogits, NoTeacher, TeacherLogits
from harness.training.teacher_reading import PairedLogits, Places, add_pairs
from harness.training.teacher_reading import chosen as pairs_of
from harness.training.whole_step import measured
from harness.types import Source

EMBEDDED = 64  # rows of the input embedding, which is no part of what is measured
STEP = Step(1, 10, 0.5)
LENGTH = 128  # tokens of a response


def method(name: str, **settings: Any) -> Method:
    """A configured method; ``name`` may carry a variant."""
    from harness import registry  # not in the peers' environment, where only Liger's side runs

    bare, _, variant = name.partition("@")
    method_class = registry.find(registry.METHODS, bare)
    return method_class(
        build(method_class.Config, (method_class.variants[variant] if variant else {}) | settings, name)
    )


def bare_head(vocab: int, hidden: int, seed: int) -> LlamaForCausalLM:
    """A causal language model without layers: embedding, norm, head. Its input embedding is small and frozen."""
    config = LlamaConfig(
        vocab_size=EMBEDDED, hidden_size=hidden, intermediate_size=8, num_hidden_layers=0, num_attention_heads=1,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = LlamaForCausalLM(config)
    model.model.embed_tokens.weight.requires_grad_(False).normal_()
    model.lm_head = nn.utils.skip_init(nn.Linear, hidden, vocab, bias=False)
    nn.init.normal_(model.lm_head.weight, std=2.0 * hidden**-0.5)  # logits of a standard deviation of 2
    return model


def resemble(teacher: LlamaForCausalLM, student: LlamaForCausalLM, alike: float = 0.95) -> LlamaForCausalLM:
    """The teacher, its logits now correlated by ``alike`` with the student's: two random heads agree on no token."""
    with torch.no_grad():
        teacher.model.embed_tokens.weight.copy_(student.model.embed_tokens.weight)
        teacher.lm_head.weight.mul_((1 - alike**2) ** 0.5).add_(student.lm_head.weight, alpha=alike)
    return teacher.requires_grad_(False)


def sources_of(chosen: Method) -> list[Source]:
    """Whose text a method may train on in a step."""
    return sorted({s for index in range(20) for s in chosen.sources(Step(index, 20, index / 20))})


def batch_of(chosen: Method | None, tokens: int, seed: int = 0) -> Batch:
    """About ``tokens`` response tokens, in sequences of every source of the method, with every field they may carry.

    The ids are the same for every method.
    """
    order = sources_of(chosen) if chosen is not None else [Source.DATA]
    dice, extra = (torch.Generator().manual_seed(s) for s in (seed, seed + 1))
    texts = []
    rewarded = chosen is not None and chosen.needs.rewards
    size = min(LENGTH, tokens // 2 if rewarded else tokens)  # rewards are compared between texts
    for i in range(max(tokens // size, 1)):
        ids, source = torch.randint(3, EMBEDDED, (4 + size,), generator=dice).tolist(), order[i % len(order)]
        sampled = validity = None
        if source not in (Source.DATA, Source.TEACHER):
            sampled = tuple((-torch.rand(size, generator=extra) * 8).tolist())
        if chosen is not None and chosen.needs.proposals:
            validity = tuple(map(tuple, torch.rand(size, 2, generator=extra).tolist()))
        texts.append(TrainingSequence(tuple(ids[:4]), tuple(ids[4:]), source, i, sampled, validity, place=i))
        if rewarded:
            texts[-1] = replace(texts[-1], reward=float(i % 2))
    ends = None
    if chosen is not None and chosen.needs.segment != "token":
        ends = torch.arange(EMBEDDED) % 12 == 0  # steps of about a dozen tokens
    made = collate(texts, 0, ends, "cpu")
    if chosen is not None and chosen.needs.hindsight is not None:  # the teacher is told something of all texts but one
        made.informed = (False, *[True] * (len(texts) - 1))
    if chosen is not None and chosen.needs.reference:
        made.reference_log_prob = -torch.rand(len(made.labels), generator=extra) * 8
    counts = made.row.bincount(minlength=len(texts)).tolist()
    made.source_tokens = {s: sum(n for n, own in zip(counts, made.sources, strict=True) if own is s) for s in order}
    return made


def read_apart(batch: Batch, chosen: Method, vocab: int) -> None:
    """Gives a batch the teacher's own reading of its texts, where the method pairs tokens.

    The teacher needs five tokens where the student needs four: runs of 1, 2 and 1 stand for runs of 2, 1 and 2. Its
    vocabulary is as large as the student's ``vocab``; three quarters of the words are shared, in the other order.
    """
    how, dice = chosen.needs.pairing, torch.Generator().manual_seed(2)
    if how is None:
        return
    readings: list[tuple[TrainingSequence, Places]] = []
    for place, (n, source) in enumerate(zip(batch.counts, batch.sources, strict=True)):
        pairs = [
            (range(a + i, a + i + k), range(b + j, b + j + m))
            for a, b in zip(range(0, n - 3, 4), range(0, 5 * n // 4, 5), strict=False)
            for i, k, j, m in ((0, 1, 0, 2), (1, 2, 2, 1), (3, 1, 3, 2))
        ]
        ids = torch.randint(3, EMBEDDED, (3 + 5 * (n // 4),), generator=dice).tolist()
        theirs = TrainingSequence(tuple(ids[:3]), tuple(ids[3:]), source, place, place=place)
        readings.append((theirs, pairs_of(how, pairs, n, len(ids) - 3, closed=False)))
    words = torch.arange(vocab * 3 // 4)
    rest = torch.arange(len(words), vocab)
    add_pairs(batch, readings, 0, (torch.stack([words, words.flip(0)], 1), (rest, rest)), vocab)
    assert batch.pairs is not None
    batch.pairs.tokens_per_pair = len(batch.labels) / sum(len(places) for _, places in readings)


def reading_of(teacher: LlamaForCausalLM, vocab: int, batch: Batch, chosen: Method | None) -> TeacherLogits:
    """The teacher's answer for a batch, in its own tokens where the method pairs them."""
    if chosen is not None and chosen.needs.teacher != "signal":
        return NoTeacher()
    with torch.no_grad():
        hidden = Student(teacher, vocab)._hidden(batch if batch.pairs is None else batch.pairs.theirs)
    logits = HiddenStateLogits(hidden, Head.of(teacher, vocab))
    return logits if batch.pairs is None else PairedLogits(logits, batch.pairs.bounds)


def see_whole_step(student: Student, batch: Batch, chosen: Method, reading: TeacherLogits) -> None:
    """Gives a batch that is a whole optimizer step the features of it that the method asks for."""
    if not chosen.needs.step_features:
        return
    values, prompts = torch.zeros(len(batch.labels), 0), len(batch.sources)
    if type(chosen).measure is not Method.measure:  # else it reads rewards alone
        values = student.measure(batch, chosen, reading, STEP)
    if chosen.needs.rewards:
        prompts = 1  # all texts answer it, so that some are better than others
    (batch.step_features,) = measured([values], [batch], chosen, STEP, prompts, lambda mine: mine, LENGTH)


def naive(
    student: Student, batch: Batch, chosen: Method, reading: TeacherLogits, weights: Tensor | None = None
) -> tuple[Tensor, Sums]:
    """What ``Student.forward`` computes, on the whole [N, V] logits and with autograd's own graph."""
    head, total = Head.of_checked(student.model, student.vocab), len(batch.labels)
    logits, features = head.logits(student._hidden(batch)), None
    if isinstance(reading, HiddenStateLogits):
        reading = _Full(reading.pair(logits, 0, total)[1])
    elif isinstance(reading, PairedLogits):
        reading = PairedLogits(_Full(reading.pair(logits, 0, total)[1]), reading.bounds)
    if chosen.needs.sequence_features:
        with torch.no_grad():
            log_q, log_p = (-cross_entropy(z, batch.labels) for z in reading.pair(logits, 0, total))
        features = chosen.sequence_features(
            Sequences(
                log_p=log_p,
                log_q=log_q,
                sampler_log_prob=batch.sampler_log_prob,
                sequence=batch.row,
                position=batch.position,
                length=batch.length,
                source=batch.sources,
                step=STEP,
            )
        )
    tokens = objective._tokens(batch, logits, reading, STEP, 0, total, features)
    token_weights = objective._weigh(chosen, tokens) if weights is None else weights
    if getattr(chosen.needs, "gate", False):
        tokens.gate, token_weights = token_weights, None
    values = chosen.objective(tokens).float()
    scale = objective._per_token(chosen, batch)
    factor = scale if token_weights is None else scale * token_weights
    value = (factor * values).sum()
    return value, Sums(value.detach(), factor.sum().detach())


class _Full:
    """A teacher's [N, V] logits, computed once."""

    def __init__(self, logits: Tensor):
        self.logits = logits

    def pair(self, logits: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
        return logits, self.logits[start:stop]


def prepare(spec: dict[str, Any]) -> Callable[[], tuple[float, dict[str, Tensor]]]:
    """The work of one side: value and gradients of a step's objective."""
    vocab, hidden = spec["vocab"], spec["hidden"]
    liger = spec["who"].startswith("liger")
    chosen = None if liger else method(spec["method"])
    student, batch = Student(bare_head(vocab, hidden, 1), vocab), batch_of(chosen, spec["tokens"])
    reading: TeacherLogits = NoTeacher()
    if chosen is not None:
        read_apart(batch, chosen, vocab)
    if liger or chosen.needs.teacher == "signal":
        reading = reading_of(resemble(bare_head(vocab, hidden, 2), student.model), vocab, batch, chosen)
    if liger:
        from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

        jsd = LigerFusedLinearJSDLoss(
            weight_hard_loss=0.0, weight_soft_loss=1.0, beta=0.5, compiled=False, chunk_size=spec["chunk"]
        )

    if chosen is not None:
        see_whole_step(student, batch, chosen, reading)

    def work() -> tuple[float, dict[str, Tensor]]:
        if liger:
            states, weight = student._hidden(batch), student.model.lm_head.weight
            mean = jsd(states, weight, reading.hidden, reading.head.weight, batch.labels)
            total = mean * len(batch.labels)
        elif spec["who"] == "ours":
            total, _ = student(batch, chosen, reading, STEP, None)
        else:
            total, _ = naive(student, batch, chosen, reading)
        total.backward()
        named = student.model.named_parameters()
        return float(total.detach()), {name: p.grad for name, p in named if p.grad is not None}

    return work
