"""Training sequences as tensors: [B, L] for the forward pass, [N] for the objective.

Only response tokens have an objective. They are concatenated, sequence after sequence, so that the output head is
applied to N rows and never to prompts or padding.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from harness.models import devices
from harness.models.token_text import Segments
from harness.token_pairs import Pairs
from harness.training.engine_gap import EngineGap
from harness.types import Source

PASS = 256  # tokens that take as long as starting another forward and backward pass; assumed


@dataclass(frozen=True)
class TrainingSequence:
    """A prompt and a response as token ids. ``response`` includes its end-of-sequence token, if it ended.

    ``learnt`` marks the tokens of the response that have an objective; None means all of them. Only a conversation with
    several learnt turns has others: the turns of the user between them.
    """

    prompt: tuple[int, ...]
    response: tuple[int, ...]
    source: Source
    example: int  # index into the examples that the run trains on
    log_probs: tuple[float, ...] | None = None  # of the response under its sampler
    validity: tuple[tuple[float, float], ...] | None = None  # per token: teacher's and student's next step
    place: int = 0  # in the optimizer step, over all processes
    sampled_at: int | None = None  # the step that sampled the response; None if none did
    cut: bool = False  # whether the response was longer
    learnt: tuple[bool, ...] | None = None
    teacher_prompt: tuple[int, ...] | None = None  # ids of the teacher's own prompt; None if it reads ``prompt``
    reward: float | None = None  # the grader's score; None without a verdict

    @property
    def places(self) -> Seq[int]:
        """The positions in the response of the tokens with an objective."""
        every = range(len(self.response))
        return every if self.learnt is None else [place for place in every if self.learnt[place]]


@dataclass
class TeacherInput:
    """The same responses after the prompts of the teacher; ``column`` is that of :class:`Batch` in these rows."""

    ids: Tensor  # [B, L']
    mask: Tensor  # [B, L']
    column: Tensor  # [N]
    sizes: tuple[int, ...]  # [B] tokens of each row, without padding

    @property
    def tokens(self) -> int:
        return sum(self.sizes)


@dataclass
class PairedBatch:
    """The teacher's own reading of a batch's texts, and the pairs of its M response tokens with the student's N."""

    theirs: Batch
    student: Tensor  # [N] pair of the token, from 0, ascending; -1 where it has none
    teacher: Tensor  # [M]
    count: Tensor  # [N] pairs of the token's sequence
    bounds: list[int]  # [N + 1] teacher tokens before each student token, at places that cut no pair
    shared: Tensor  # [K, 2] see Pairs
    alone: tuple[Tensor, Tensor]
    vocab: int  # W
    tokens_per_pair: float = 1.0

    @property
    def width(self) -> int:
        """The teacher's logits per student token, on average, rounded up."""
        return -(-self.vocab * len(self.teacher) // max(len(self.student), 1))

    def within(self, start: int, stop: int) -> Pairs:
        """The pairs of the student's tokens [start, stop)."""
        here = slice(self.bounds[start], self.bounds[stop])
        student, teacher = self.student[start:stop], self.teacher[here]
        before = int(student[student >= 0].min()) if bool((student >= 0).any()) else 0
        return Pairs(
            student=torch.where(student >= 0, student - before, -1),
            teacher=torch.where(teacher >= 0, teacher - before, -1),
            labels=self.theirs.labels[here],
            sequence=self.theirs.row[here],
            position=self.theirs.position[here],
            count=self.count[start:stop],
            shared=self.shared,
            alone=self.alone,
            tokens_per_pair=self.tokens_per_pair,
        )


@dataclass
class Batch:
    """B sequences right-padded to L tokens, with N response tokens in all.

    The values that determine how to split the work are also on the host, so that no step waits for a device.
    """

    ids: Tensor  # [B, L]
    mask: Tensor  # [B, L] 1 on tokens, 0 on padding
    row: Tensor  # [N] sequence of the response token
    column: Tensor  # [N] column of the hidden state that predicts it
    labels: Tensor  # [N]
    position: Tensor  # [N] 0-based place among the response tokens of the sequence
    length: Tensor  # [N] response tokens of the token's sequence
    segment_id: Tensor  # [N]
    segment_list: list[int]  # segment_id on the host, for cutting chunks
    sizes: tuple[int, ...]  # [B] tokens of each sequence that enter the forward pass, on the host
    counts: tuple[int, ...]  # [B] response tokens of each among the N, on the host
    sampler_log_prob: Tensor | None  # [N]
    validity: Tensor | None  # [N, 2]
    sources: tuple[Source, ...]  # [B]
    examples: tuple[int, ...]  # [B] see TrainingSequence.example
    places: tuple[int, ...]  # [B] see TrainingSequence.place
    rewards: tuple[float | None, ...] = ()  # [B] see TrainingSequence.reward
    informed: tuple[bool, ...] = ()  # [B] whether the teacher reads the sequence after its own prompt
    special: Tensor | None = None  # [N] bool, see Tokens.special
    teacher_input: TeacherInput | None = None  # the teacher's input, if it has its own prompts
    reference_log_prob: Tensor | None = None  # [N] see Tokens.reference_log_prob
    step_features: Tensor | None = None  # [N, ...] see Tokens.step_features
    pairs: PairedBatch | None = None  # if the teacher reads texts in its own tokens
    source_tokens: dict[Source, int] = field(default_factory=dict)  # response tokens of the whole step, all processes
    gap: EngineGap | None = None  # of the step, if an engine sampled text of it

    @property
    def tokens(self) -> int:
        """Tokens that enter the forward pass, without padding."""
        return sum(self.sizes)

    @functools.cached_property
    def fresh(self) -> Tensor | None:
        """[N] whether the student sampled the token for this step; None if it sampled none."""
        sampled = [source is Source.STUDENT for source in self.sources]
        return torch.tensor(sampled, device=self.row.device)[self.row] if any(sampled) else None

    @functools.cached_property
    def rows(self) -> list[int]:
        """``row`` on the host."""
        return [i for i, count in enumerate(self.counts) for _ in range(count)]

    def only(self, rows: Seq[int]) -> Batch:
        """The batch of some of its sequences, in their order."""
        if list(rows) == list(range(len(self.sources))):
            return self
        chosen = torch.tensor(rows, device=self.ids.device)
        at = torch.full((len(self.sources),), -1, device=self.ids.device)
        at[chosen] = torch.arange(len(rows), device=self.ids.device)
        mine, kept = at[self.row] >= 0, set(rows)

        def part(values: Tensor | None) -> Tensor | None:
            return None if values is None else values[mine]

        return replace(
            self,
            ids=self.ids[chosen],
            mask=self.mask[chosen],
            row=at[self.row[mine]],
            column=self.column[mine],
            labels=self.labels[mine],
            position=self.position[mine],
            length=self.length[mine],
            segment_id=self.segment_id[mine],
            segment_list=[s for s, row in zip(self.segment_list, self.rows, strict=True) if row in kept],
            sizes=tuple(self.sizes[i] for i in rows),
            counts=tuple(self.counts[i] for i in rows),
            sampler_log_prob=part(self.sampler_log_prob),
            validity=part(self.validity),
            sources=tuple(self.sources[i] for i in rows),
            examples=tuple(self.examples[i] for i in rows),
            places=tuple(self.places[i] for i in rows),
            rewards=tuple(self.rewards[i] for i in rows),
            informed=tuple(self.informed[i] for i in rows),
            special=part(self.special),
            step_features=part(self.step_features),
        )


def collate(
    sequences: Seq[TrainingSequence],
    pad: int,
    ends: Tensor | Segments | None,
    device: str | torch.device,
    special: Seq[int] = (),
) -> Batch:
    """The tensors of a micro-batch. ``ends`` splits the texts, or says which tokens [V] end a segment, or is None if
    every token is one; ``special`` are token ids.
    """
    ids, mask = _padded([s.prompt + s.response for s in sequences], pad)
    chosen = [(s, i) for s in sequences for i in s.places]  # the N tokens with an objective
    lengths = torch.tensor([len(s.places) for s in sequences])
    row = torch.repeat_interleave(torch.arange(len(sequences)), lengths)
    position = torch.cat([torch.arange(n) for n in lengths.tolist()])
    place = torch.tensor([i for _, i in chosen], dtype=torch.long)
    # The hidden state before a token predicts it, hence the -1.
    column = torch.tensor([len(s.prompt) for s in sequences])[row] + place - 1
    labels = ids[row, column + 1]
    if isinstance(ends, Segments):
        cut = [ends.ends(s.response) for s in sequences]
        after = torch.tensor([end[i] for s, end in zip(sequences, cut, strict=True) for i in s.places])
    else:
        after = None if ends is None else ends[labels]
    segment_id = _segments(place, after)
    log_probs = validity = None
    if any(s.log_probs is not None for s in sequences):
        log_probs = torch.tensor([s.log_probs[i] if s.log_probs else float("nan") for s, i in chosen])
    if any(s.validity is not None for s in sequences):
        nothing = (float("nan"), float("nan"))
        validity = torch.tensor([s.validity[i] if s.validity else nothing for s, i in chosen])
    # Make few copies to the device: tensors of equal shape and type go together.
    whole = _moved(device, ids, mask)
    of_tokens = _moved(device, row, column, labels, position, lengths[row], segment_id)
    return Batch(
        ids=whole[0],
        mask=whole[1],
        row=of_tokens[0],
        column=of_tokens[1],
        labels=of_tokens[2],
        position=of_tokens[3],
        length=of_tokens[4],
        segment_id=of_tokens[5],
        segment_list=segment_id.tolist(),
        sizes=tuple(len(s.prompt) + len(s.response) for s in sequences),
        counts=tuple(lengths.tolist()),
        sampler_log_prob=None if log_probs is None else _moved(device, log_probs)[0],
        validity=None if validity is None else _moved(device, validity)[0],
        sources=tuple(s.source for s in sequences),
        examples=tuple(s.example for s in sequences),
        places=tuple(s.place for s in sequences),
        rewards=tuple(s.reward for s in sequences),
        informed=tuple(s.teacher_prompt is not None for s in sequences),
        special=_moved(device, torch.isin(labels, torch.tensor(special, dtype=labels.dtype)))[0],
        teacher_input=_teacher_input(sequences, row, place, pad, device),
    )


def _moved(device: str | torch.device, *parts: Tensor) -> Seq[Tensor]:
    """Tensors of equal shape and type on the device, in one copy that the host does not wait for."""
    if torch.device(device).type == "cpu":
        return parts
    return devices.moved(torch.stack(parts), device).unbind()


def _padded(rows: Seq[Seq[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Token ids [B, L], padded on the right, and the mask of the tokens among them."""
    ids = torch.full((len(rows), max(map(len, rows))), pad)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
    return ids, mask


def _teacher_input(
    sequences: Seq[TrainingSequence], row: Tensor, place: Tensor, pad: int, device: str | torch.device
) -> TeacherInput | None:
    """The teacher's input if its prompts differ. Responses are equal, so every token keeps its place."""
    if all(s.teacher_prompt is None for s in sequences):
        return None
    prompts = [s.prompt if s.teacher_prompt is None else s.teacher_prompt for s in sequences]
    ids, mask = _padded([(*prompt, *s.response) for prompt, s in zip(prompts, sequences, strict=True)], pad)
    column = torch.tensor([len(prompt) for prompt in prompts])[row] + place - 1
    sizes = tuple(len(prompt) + len(s.response) for prompt, s in zip(prompts, sequences, strict=True))
    return TeacherInput(*_moved(device, ids, mask), *_moved(device, column), sizes)


def _segments(place: Tensor, after: Tensor | None) -> Tensor:
    """[N] consecutive segment numbers: a segment ends with its turn or after a token of ``after`` [N] bool."""
    if after is None:
        return torch.arange(len(place))
    begins = torch.ones(len(place), dtype=torch.bool)
    begins[1:] = (place[1:] != place[:-1] + 1) | after[:-1]
    return begins.long().cumsum(0) - 1


def micro_batches(
    sequences: Seq[TrainingSequence], size: int, tokens: int | None = None
) -> list[list[TrainingSequence]]:
    """The sequences of an optimizer step in micro-batches of at most ``size``, sorted by length to save padding.

    ``tokens`` bounds each, including padding: many short sequences or few long ones, split where padding and passes
    cost least together. A longer sequence gets its own micro-batch.
    """
    ordered = sorted(sequences, key=lambda s: (len(s.prompt) + len(s.response), s.place))
    if tokens is None:
        return [list(ordered[i : i + size]) for i in range(0, len(ordered), size)]
    ends = _cuts([len(s.prompt) + len(s.response) for s in ordered], size, tokens)
    return [list(ordered[i:k]) for i, k in zip((0, *ends), ends, strict=False)]


def _cuts(lengths: Seq[int], size: int, tokens: int) -> list[int]:
    """Splits ascending ``lengths``; returns the ends of the parts with the fewest computed tokens, including padding,
    with :data:`PASS` for each part.
    """
    least, begins = [0], [0]  # for the first n lengths: their cost, and the start of their last part
    for end in range(1, len(lengths) + 1):
        width, costs = lengths[end - 1], []
        # Try wider parts until one is full; a sequence longer than the bound gets its own part.
        for start in range(end - 1, max(end - size, 0) - 1, -1):
            if (end - start) * width > tokens and start < end - 1:
                break
            costs.append((least[start] + (end - start) * width + PASS, start))
        cost, start = min(costs)
        least.append(cost)
        begins.append(start)
    ends = [len(lengths)]
    while begins[ends[-1]]:
        ends.append(begins[ends[-1]])
    return ends[::-1]
