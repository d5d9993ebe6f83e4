"""The teacher's own reading of the student's texts: its own prompt, its own tokens, and their pairs with the student's.

For methods with ``Needs.pairing``. A response is decoded to text and encoded in the teacher's tokens; the pairs come
from :mod:`harness.models.alignment`. If both models have the same ids, the teacher reads the student's ids.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any

import torch
from accelerate import Accelerator

from harness.errors import BadInput
from harness.method import Pairing
from harness.models import alignment
from harness.models.generate import Generator
from harness.training.batching import Batch, PairedBatch, TrainingSequence, collate
from harness.training.job import TrainingData
from harness.training.signal_contract import TeacherSignal
from harness.training.signals import TeacherLogits
from harness.types import Source

Places = list[tuple[range, range]]  # of a text's pairs: places in the student's and in the teacher's response


class TeacherReading:
    """Reads texts of ``student`` with ``teacher``, whose head has ``vocab`` columns. ``same_ids``: one tokenizer."""

    def __init__(
        self, pairing: Pairing, student: Generator, teacher: Generator, data: TrainingData, vocab: int, same_ids: bool
    ):
        self.pairing, self.student, self.teacher, self.data = pairing, student, teacher, data
        self.vocab, self.same_ids = vocab, same_ids
        self.aligner = alignment.TextAligner(student, teacher, same_ids=same_ids)
        self._words: tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]] | None = None
        self._fixed: dict[tuple[Source, int], tuple[TrainingSequence, Places]] = {}

    def of(self, sequence: TrainingSequence) -> tuple[TrainingSequence, Places]:
        """The teacher's reading of a sequence, and the pairs."""
        key = (sequence.source, sequence.example)
        # Fixed texts are read once; the student's own text changes at every step.
        if sequence.source not in (Source.DATA, Source.TEACHER):
            return self._read(sequence)
        if key not in self._fixed:
            self._fixed[key] = self._read(sequence)
        return self._fixed[key]

    def pair(self, batches: Seq[Batch], vocab: int, accelerator: Accelerator) -> None:
        """Adds the reading to the batches of an optimizer step; student logits have ``vocab`` columns. A collective."""
        for batch in batches:
            self._pair(batch, vocab)
        # A loss over pairs has fewer terms than one over tokens. The ratio over all processes puts them on one scale.
        own = [sum(len(b.labels) for b in batches), sum(int(p.student.max()) + 1 for b in batches if (p := b.pairs))]
        tokens, pairs = accelerator.reduce(torch.tensor(own, device=accelerator.device)).tolist()
        for batch in batches:
            assert batch.pairs is not None, "paired above"
            batch.pairs.tokens_per_pair = tokens / max(pairs, 1)

    def check(self, texts: Seq[TrainingSequence], whose: str) -> None:
        """Raises BadInput if no text has a pair."""
        if texts and not any(self.of(text)[1] for text in texts):
            raise BadInput(
                f"none of {len(texts)} texts of the {whose} has a token of student and teacher that end at one place: "
                "the teacher's tokenizer does not keep these texts; take another teacher, or train on its text alone"
            )

    def _read(self, sequence: TrainingSequence) -> tuple[TrainingSequence, Places]:
        pool = self.data.labelled if sequence.source is Source.DATA else self.data.prompts
        if self.same_ids:
            prompt, ids, n = sequence.prompt, sequence.response, len(sequence.response)
            closed = bool(ids) and ids[-1] in self.student.end_ids
            pairs = [(range(i, i + 1), range(i, i + 1)) for i in range(n - closed)]
        else:
            # The same question in the teacher's template, and the student's text in the teacher's tokens.
            rendered = self.teacher.render(pool[sequence.example].prompt)
            prompt = tuple(self.teacher.encode(rendered))
            text = self.aligner.reads(sequence.prompt, sequence.response, self.student.end_ids)
            ids, ends = self.aligner.teacher_ids(prompt, text)
            closed = text.closed
            pairs = alignment.pair(text.ends, ends)
            ids = (*ids, self.teacher.end_id) if closed else ids
        places = chosen(self.pairing, pairs, len(sequence.response), len(ids), closed)
        # Text beyond the teacher's context has no pair.
        room = len(ids) if self.teacher.limit is None else max(self.teacher.limit - len(prompt), 0)
        theirs = TrainingSequence(prompt, ids[:room], sequence.source, sequence.example, place=sequence.place)
        return theirs, [(a, b) for a, b in places if b.stop <= room]

    def _pair(self, batch: Batch, vocab: int) -> None:
        readings = [self.of(sequence) for sequence in _sequences(batch)]
        add_pairs(batch, readings, self.teacher.pad_id, self._vocabularies(vocab, batch.ids.device), self.vocab)

    def _vocabularies(self, vocab: int, device: torch.device) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """The ids [K, 2] of tokens with equal text on both sides, and the remaining ids of each side."""
        if self._words is None:
            # Compute once per training, because the vocabularies do not change.
            pairs = torch.tensor(self.aligner.shared((vocab, self.vocab)), dtype=torch.long).reshape(-1, 2)
            rest = []
            for side, size in enumerate((vocab, self.vocab)):
                free = torch.ones(size, dtype=torch.bool)
                free[pairs[:, side]] = False
                rest.append(free.nonzero()[:, 0].to(device))
            self._words = pairs.to(device), (rest[0], rest[1])
        return self._words


def add_pairs(
    batch: Batch,
    readings: Seq[tuple[TrainingSequence, Places]],
    pad: int,
    words: tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]],
    vocab: int,
) -> None:
    """Adds the teacher's readings of a batch's texts and their pairs, which no slice then cuts.

    ``words`` are ``shared`` [K, 2] and ``alone`` of :class:`Pairs`; ``vocab`` is the teacher's, ``pad`` its padding.
    """
    device = batch.ids.device
    theirs = collate([theirs for theirs, _ in readings], pad, None, device)
    student, teacher, count, bounds, segments = [], [], [], [0], []
    total = segment = 0
    sizes = batch.counts
    # Number pairs, the teacher's rows, and segments of the student's rows consecutively over the batch.
    for (reading, places), n in zip(readings, sizes, strict=True):
        m, begin = len(reading.response), bounds[-1]
        # -1 marks a row without a pair; before[i] counts the teacher's rows in front of the student's row i.
        mine, other, before = [-1] * n, [-1] * m, [begin] * (n + 1)
        inside = [False] * n  # rows that continue the pair of the row before
        for a, b in places:
            for rows, pairs in ((a, mine), (b, other)):
                pairs[rows.start : rows.stop] = [total] * len(rows)
            before[a.stop :] = [begin + b.stop] * (n + 1 - a.stop)
            inside[a.start + 1 : a.stop] = [True] * (len(a) - 1)
            total += 1
        before[n] = begin + m
        # A pair is one segment, so that no slice cuts it: the objective needs all of its rows at once.
        for cut in inside:
            segment += not cut
            segments.append(segment)
        student, teacher, bounds = [*student, *mine], [*teacher, *other], [*bounds[:-1], *before]
        count += [len(places)] * n
    batch.segment_list = [one - 1 for one in segments]
    batch.segment_id = torch.tensor(batch.segment_list, device=device)
    numbers = [torch.tensor(rows, dtype=torch.long, device=device) for rows in (student, teacher, count)]
    batch.pairs = PairedBatch(
        theirs=theirs,
        student=numbers[0],
        teacher=numbers[1],
        count=numbers[2],
        bounds=bounds,
        shared=words[0],
        alone=words[1],
        vocab=vocab,
    )


def chosen(how: Pairing, pairs: Places, n: int, m: int, closed: bool) -> Places:
    """The pairs that a method compares. ``pairs`` are those of two texts of ``n`` and ``m`` tokens without their ends,
    which are the last tokens if ``closed``. Rows that the method takes after the last token do not exist.
    """
    # By place: token i with token i, regardless of their text.
    if how.by == "place":
        size = min(n, m) - (closed and not how.ends)
        pairs = [(range(i, i + 1), range(i, i + 1)) for i in range(size)]
    elif how.ends and closed:
        pairs = [*pairs, (range(n - 1, n), range(m - 1, m))]
    if how.after:
        pairs = [(range(a.start + 1, a.stop + 1), range(b.start + 1, b.stop + 1)) for a, b in pairs]
    return [(a, b) for a, b in pairs if a.stop <= n and b.stop <= m]


def _sequences(batch: Batch) -> list[TrainingSequence]:
    """The sequences of a batch, all of whose response tokens are learnt."""
    sequences = []
    for i, (source, example, place) in enumerate(zip(batch.sources, batch.examples, batch.places, strict=True)):
        # The column that predicts the first response token is the last of the prompt.
        columns = batch.column[batch.row == i]
        ids, start = batch.ids[i].tolist(), int(columns[0]) + 1
        sequences.append(
            TrainingSequence(
                tuple(ids[:start]), tuple(batch.labels[batch.row == i].tolist()), source, example, place=place
            )
        )
    return sequences


class PairedSignal(TeacherSignal):
    """Another signal, evaluated on the teacher's own reading of a batch."""

    name = "paired"

    def __init__(self, signal: TeacherSignal):
        self.signal, self.given = signal, signal.given

    def read(self, batch: Batch) -> PairedLogits:
        assert batch.pairs is not None, "the loop pairs every batch"
        return PairedLogits(self.signal.read(batch.pairs.theirs), batch.pairs.bounds)

    def tokens(self, batch: Batch) -> int:
        assert batch.pairs is not None, "the loop pairs every batch"
        return self.signal.tokens(batch.pairs.theirs)

    def facts(self) -> dict[str, Any]:
        return self.signal.facts()


class PairedLogits:
    """The teacher's logits [m, W] of its tokens for a slice of the student's [n, V]."""

    def __init__(self, logits: TeacherLogits, bounds: list[int]):
        self.logits, self.bounds = logits, bounds

    def pair(self, logits: torch.Tensor, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        # A slice of the student's rows corresponds to a different number of the teacher's.
        return logits, self.logits.pair(logits, self.bounds[start], self.bounds[stop])[1]

    def over(self, start: int, stop: int) -> PairedLogits:
        return PairedLogits(self.logits.over(self.bounds[start], self.bounds[stop]), self.bounds)
