"""Proposals of both models for the next step after the same prefix, each scored by an estimator of its validity.

Each step of a text continues a prefix at which the two models are compared. If one of them wrote the text, its steps
are that model's first proposals and only the other model generates. A single pass over the text finds where the other
model would greedily write the same, so it generates only from the first token that differs.
:mod:`harness.training.validity` scores the proposals.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Sequence as Seq
from typing import Any, Protocol

from harness.method import Proposing
from harness.models.generate import Generator
from harness.models.token_text import Segments, behind, continuation
from harness.training.batching import TrainingSequence
from harness.training.report import Cost, ValidityReport
from harness.training.signals import LiveTeacher
from harness.training.validity import NAN, Checker, Place, PlacedStep, ProposedStep, spend
from harness.types import Decoding, Example, Source, stable_seed

BOTH = (Source.TEACHER, Source.STUDENT)
PartialStep = tuple[tuple[int, ...], tuple[float, ...]]  # ids of an unfinished step, and their log-probabilities


class Estimator(Protocol):
    """Scores steps; NaN if unknown. ``step`` is the optimizer step."""

    def values(self, proposed: Seq[PlacedStep], step: int, cost: Cost) -> list[float]: ...


class Proposals:
    """Scores the next steps that teacher and student propose after every step of a text.

    ``checker`` is the data's own, if there is one, and is compared with the estimator.
    """

    def __init__(
        self,
        student: Generator,
        teacher: Generator,
        estimator: Estimator,
        how: Proposing,
        segments: Segments,
        checker: Checker | None = None,
    ):
        self.generators = {Source.STUDENT: student, Source.TEACHER: teacher}
        self.estimator, self.how, self.segments, self.checker = estimator, how, segments, checker
        self.report = ValidityReport()
        self.reader: LiveTeacher | None = None  # the teacher's signal, if it is read here: one pass serves both

    def judge(
        self, sequences: Seq[TrainingSequence], labelled: Seq[Example], prompts: Seq[Example], step: int, cost: Cost
    ) -> list[TrainingSequence]:
        """The sequences with ``validity`` set: per token (teacher, student), NaN if unknown."""
        began, spent = time.monotonic(), Cost()
        places = [
            place
            for i, s in enumerate(sequences)
            for place in self._places(i, s, (labelled if s.source is Source.DATA else prompts)[s.example])
        ]
        for author in BOTH:
            if self.how.temperature == 0:
                self._follow(author, sequences, places, spent)
            self._propose(author, places, step, spent)
        # Score a step only once if both models propose it, or one of them twice.
        unique: dict[Any, PlacedStep] = {}
        for i, place in enumerate(places):
            for proposal in (proposal for author in BOTH for proposal in place.steps[author]):
                unique.setdefault((i, proposal.ids), (place, proposal))
        values = self.estimator.values(list(unique.values()), step, spent) if unique else []
        scores = dict(zip(unique, values, strict=True))
        if self.checker is not None and self.how.validity != "checker":
            self.report.compare(values, [self.checker(p.example.meta, p.prefix, m.text) for p, m in unique.values()])
        # Every token of a step gets the validity of that step.
        validity = [[(NAN, NAN)] * len(s.response) for s in sequences]
        for i, place in enumerate(places):
            teacher, student = (_mean([scores[i, proposal.ids] for proposal in place.steps[author]]) for author in BOTH)
            validity[place.sequence][place.start : place.stop] = [(teacher, student)] * (place.stop - place.start)
        spent.seconds = time.monotonic() - began
        self.report.spend(spent)
        cost.add(
            generated_tokens=spent.generated_tokens,
            teacher_forward_tokens=spent.teacher_forward_tokens,
            student_tokens=spent.student_tokens,
        )
        return [dataclasses.replace(s, validity=tuple(v)) for s, v in zip(sequences, validity, strict=True)]

    def _places(self, index: int, sequence: TrainingSequence, example: Example) -> list[Place]:
        """Every step of a text as a place, with the text's own step there."""
        places, prefix, tokenizer = [], "", self.generators[Source.STUDENT].tokenizer
        author = Source.STUDENT if sequence.source in (Source.STUDENT, Source.REPLAY) else sequence.source
        for start, stop in self.segments.places(sequence.response):
            text = continuation(tokenizer, sequence.prompt, sequence.response[:stop])
            place = Place(index, start, stop, example, sequence.prompt, sequence.response, prefix)
            line = behind(prefix, text).rstrip("\n")
            place.steps = {a: [] for a in BOTH}
            if author in BOTH:
                place.steps[author] = [ProposedStep(place.written, line, written=True)]
            places.append(place)
            prefix = text
        return places

    def _follow(self, author: Source, sequences: Seq[TrainingSequence], places: Seq[Place], cost: Cost) -> None:
        """Finds how far the author's greedy steps agree with texts of others; complete ones become its proposals."""
        mine = [place for place in places if not place.steps[author]]
        texts = {p.sequence: (sequences[p.sequence].prompt, sequences[p.sequence].response) for p in mine}
        if not texts:
            return
        generator, by_teacher = self.generators[author], author is Source.TEACHER
        pairs = list(texts.values())
        if by_teacher and self.reader is not None:
            scored_texts = self.reader.score(pairs, generator.batch, generator.words)
        else:
            scored_texts = generator.score(pairs)
        scores_of = dict(zip(texts, scored_texts, strict=True))
        # This pass over the student's text also gives its signal, which the loop charges. The signal of labelled text
        # comes from a cache, so its pass is charged here.
        shared = by_teacher and self.reader is not None
        paid = [whole for i, whole in texts.items() if not shared or sequences[i].source is Source.DATA]
        read = sum(len(prompt) + len(response) for prompt, response in paid)
        cost.add(**{"teacher_forward_tokens" if by_teacher else "student_tokens": read})
        for place in mine:
            scored, ids = scores_of[place.sequence], place.written
            greedy, log_probs = (part[place.start : place.stop] for part in (scored.greedy, scored.log_probs))
            same = next((i for i, likeliest in enumerate(greedy) if not likeliest), len(ids))
            mean = math.fsum(log_probs) / len(ids)
            # The last step of a truncated text has no end, and neither has a step longer than the limit.
            ended = self.segments.ends(ids)[-1] or ids[-1] in generator.end_ids
            if same == len(ids) <= self._limit and ended:
                text = continuation(generator.tokenizer, place.before, ids).rstrip("\n")
                place.steps[author].append(ProposedStep(ids, text, True, mean if by_teacher else None))
            place.agreed[author] = same, log_probs[:same]
            if by_teacher:  # the teacher's log-probability of the written steps
                for other, steps in place.steps.items():
                    place.steps[other] = [dataclasses.replace(s, log_prob=mean) if s.written else s for s in steps]

    @property
    def _limit(self) -> int:
        """The maximum length of a proposed step, in tokens."""
        return {"span": self.segments.span, "token": 1}.get(self.segments.unit, self.how.longest)

    def _propose(self, author: Source, places: Seq[Place], step: int, cost: Cost) -> None:
        """Adds proposals of the author at every place up to the requested number."""
        missing = [(p, k) for p in places for k in range(len(p.steps[author]), self.how.count)]
        if not missing:
            return
        generator, by_teacher = self.generators[author], author is Source.TEACHER
        decoding = Decoding(self.how.temperature, 1.0, self._limit, stop=self.segments.stop)
        seeds = [stable_seed("proposal", author, step, place.before, k) for place, k in missing]
        # Continue a greedy step from its known beginning.
        agreed = [place.agreed.get(author, (0, ())) for place, _ in missing]
        before = [(*place.before, *place.written[:size]) for (place, _), (size, _) in zip(missing, agreed, strict=True)]
        generated = generator.continue_ids(before, decoding, seeds)
        spend(cost, generated, by_teacher)
        proposals = [
            ((*place.written[:size], *g.ids)[: self._limit], (*log_probs, *g.log_probs)[: self._limit])
            for (place, _), (size, log_probs), g in zip(missing, agreed, generated, strict=True)
        ]
        # A line break inside a statement stops the generation early: continue until the statement or its room ends.
        proposals = self._finished(
            generator, [p.before for p, _ in missing], proposals, decoding, seeds, cost, by_teacher
        )
        for (place, _), (ids, log_probs) in zip(missing, proposals, strict=True):
            size = self.segments.first(ids)
            known = math.fsum(log_probs[:size]) / size if by_teacher and size else None
            text = continuation(generator.tokenizer, place.before, ids[:size]).rstrip("\n")
            place.steps[author].append(ProposedStep(ids[:size], text, log_prob=known))

    def _finished(
        self,
        generator: Generator,
        before: Seq[tuple[int, ...]],
        begun: Seq[PartialStep],
        decoding: Decoding,
        seeds: Seq[int],
        cost: Cost,
        by_teacher: bool,
    ) -> list[PartialStep]:
        """Ids and log-probabilities of every proposal, continued where its step has not ended."""
        proposals = list(begun)
        if self.segments.unit != "statement":
            return proposals
        ends = generator.end_ids
        for part in range(1, decoding.max_new_tokens):
            short = [
                i
                for i, (ids, _) in enumerate(proposals)
                if ids
                and len(ids) < decoding.max_new_tokens
                and ids[-1] not in ends
                and not self.segments.ends(ids)[-1]
            ]
            if not short:
                break
            again = generator.continue_ids(
                [(*before[i], *proposals[i][0]) for i in short], decoding, [stable_seed(seeds[i], part) for i in short]
            )
            spend(cost, again, by_teacher)
            for i, generated in zip(short, again, strict=True):
                ids, log_probs = proposals[i][0] + generated.ids, proposals[i][1] + generated.log_probs
                proposals[i] = ids[: decoding.max_new_tokens], log_probs[: decoding.max_new_tokens]
                if not generated.ids:  # the context is full
                    return proposals
        return proposals


def _mean(values: Seq[float]) -> float:
    """The mean of the known values; NaN if there are none."""
    known = [v for v in values if v == v]
    return math.fsum(known) / len(known) if known else NAN
