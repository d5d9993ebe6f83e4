"""Estimators of the local validity of a proposed step, in [0, 1].

An estimator gets all steps of an optimizer step at once, so that models run on full batches. Values that depend only on
the teacher are cached by content: the same step after the same prefix is computed once, but charged every time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Any

from harness.durable import CacheFile, digest
from harness.method import Proposing
from harness.models.generate import Generator
from harness.models.token_text import Segments, continuation
from harness.training.report import Cost
from harness.training.verdicts import Grader
from harness.types import Decoding, Example, Source, stable_seed

Checker = Callable[[Mapping[str, Any], str, str], float | None]
Same = Callable[[Mapping[str, Any], str, str, str], bool]
NAN = float("nan")
QUESTION = "\n\nIs the last step above correct? Answer yes or no.\nAnswer:"


@dataclass(frozen=True)
class ProposedStep:
    """A step as ids and as text without the line break at its end; ``written`` if the training text has it."""

    ids: tuple[int, ...]
    text: str
    written: bool = False
    log_prob: float | None = None  # mean per token under the teacher, if already known


@dataclass
class Place:
    """The place of a step in a training text: tokens [start, stop) of ``sequence``, and the text before it."""

    sequence: int
    start: int
    stop: int
    example: Example
    prompt: tuple[int, ...]
    response: tuple[int, ...]
    prefix: str  # the text of the response before the step
    steps: dict[Source, list[ProposedStep]] = field(default_factory=dict)  # by teacher and student
    # By author: the number of tokens that its greedy step shares with the written step, and their log-probabilities.
    agreed: dict[Source, tuple[int, tuple[float, ...]]] = field(default_factory=dict)

    @property
    def before(self) -> tuple[int, ...]:
        """The ids that the step continues."""
        return (*self.prompt, *self.response[: self.start])

    @property
    def written(self) -> tuple[int, ...]:
        """The text's own step here."""
        return self.response[self.start : self.stop]


PlacedStep = tuple[Place, ProposedStep]


class CheckerValidity:
    """The data's own step checker; NaN if unknown."""

    def __init__(self, check: Checker):
        self.check = check

    def values(self, proposed: Seq[PlacedStep], step: int, cost: Cost) -> list[float]:
        verdicts = [self.check(place.example.meta, place.prefix, proposal.text) for place, proposal in proposed]
        return [NAN if value is None else float(value) for value in verdicts]


class LikelihoodValidity:
    """exp of the step's mean log-probability under the teacher, less that of the teacher's likeliest own step.

    1 for the teacher's own step and for equally likely ones; never more.
    """

    def __init__(self, teacher: Generator):
        self.teacher = teacher

    def values(self, proposed: Seq[PlacedStep], step: int, cost: Cost) -> list[float]:
        means = self._means([*proposed, *((p, s) for p, _ in proposed for s in p.steps[Source.TEACHER])], cost)
        best = [max(means[_key(place, s)] for s in place.steps[Source.TEACHER]) for place, _ in proposed]
        return [math.exp(min(0.0, means[_key(p, s)] - top)) for (p, s), top in zip(proposed, best, strict=True)]

    def _means(self, proposed: Seq[PlacedStep], cost: Cost) -> dict[Any, float]:
        """The mean log-probability of every step. Steps of a training text share one pass over that text."""
        unique = {_key(place, proposal): (place, proposal) for place, proposal in proposed}
        means = {key: proposal.log_prob for key, (_, proposal) in unique.items() if proposal.log_prob is not None}
        texts = {p.sequence: p for p, proposal in unique.values() if proposal.written and proposal.log_prob is None}
        fresh = {k: (p, proposal) for k, (p, proposal) in unique.items() if k not in means and not proposal.written}
        pairs = [(p.prompt, p.response) for p in texts.values()] + [(p.before, m.ids) for p, m in fresh.values()]
        cost.add(teacher_forward_tokens=sum(len(a) + len(b) for a, b in pairs))
        rows = [scored.log_probs for scored in self.teacher.score(pairs)]
        of_text = dict(zip(texts, rows[: len(texts)], strict=True))
        for key, row in zip(fresh, rows[len(texts) :], strict=True):
            means[key] = math.fsum(row) / max(len(row), 1)
        for key, (place, _) in unique.items():
            if key not in means:
                row = of_text[place.sequence][place.start : place.stop]
                means[key] = math.fsum(row) / len(row)
        return means


class SuccessValidity:
    """The share of continuations of a step whose whole answer the data's grader finds right."""

    def __init__(self, continuer: Generator, grader: Grader, how: Proposing, longest: int):
        self.continuer, self.grader, self.tries, self.longest = continuer, grader, how.tries, longest
        self.fixed = how.continued_by == "teacher"

    def values(self, proposed: Seq[PlacedStep], step: int, cost: Cost) -> list[float]:
        values: list[float] = []
        beginnings = [(*place.before, *proposal.ids) for place, proposal in proposed]
        ended = [bool(proposal.ids) and proposal.ids[-1] in self.continuer.end_ids for _, proposal in proposed]
        # Grade a finished answer directly; continue all others several times.
        tries = [1 if end else self.tries for end in ended]
        open_ones = [(i, k) for i, end in enumerate(ended) if not end for k in range(self.tries)]
        by_step = () if self.fixed else (step,)
        seeds = [stable_seed("success", *by_step, beginnings[i], k) for i, k in open_ones]
        decoding = Decoding(1.0, 1.0, self.longest)
        continuations = self.continuer.continue_ids([beginnings[i] for i, _ in open_ones], decoding, seeds)
        spend(cost, continuations, self.fixed)
        ids = {pair: g.ids for pair, g in zip(open_ones, continuations, strict=True)}
        texts, examples = [], []
        for i, (place, _) in enumerate(proposed):
            for k in range(tries[i]):
                answer = (*beginnings[i][len(place.prompt) :], *ids.get((i, k), ()))
                texts.append(continuation(self.continuer.tokenizer, place.prompt, answer))
                examples.append(place.example)
        scores = iter(verdict.score for verdict in self.grader.verdicts(examples, texts))
        for n in tries:
            known = [s for s in (next(scores) for _ in range(n)) if s is not None]
            values.append(math.fsum(known) / len(known) if known else NAN)
        return values


class AgreementValidity:
    """The share of steps sampled from the teacher that mean the same as the step."""

    def __init__(self, teacher: Generator, how: Proposing, segments: Segments, same: Same | None):
        self.teacher, self.how, self.segments = teacher, how, segments
        self.same = same or (lambda meta, prefix, one, other: " ".join(one.split()) == " ".join(other.split()))

    def values(self, proposed: Seq[PlacedStep], step: int, cost: Cost) -> list[float]:
        places = {place.before: place for place, _ in proposed}
        samplings = [(place, k) for place in places.values() for k in range(self.how.tries)]
        seeds = [stable_seed("agreement", place.before, k) for place, k in samplings]
        decoding = Decoding(1.0, 1.0, self.how.longest, stop=self.segments.stop)
        continuations = self.teacher.continue_ids([place.before for place, _ in samplings], decoding, seeds)
        spend(cost, continuations, True)
        samples: dict[Any, list[str]] = {before: [] for before in places}
        for (place, _), generated in zip(samplings, continuations, strict=True):
            samples[place.before].append(self._text(place, generated.ids))
        return [
            sum(self.same(p.example.meta, p.prefix, s.text, other) for other in samples[p.before]) / self.how.tries
            for p, s in proposed
        ]

    def _text(self, place: Place, ids: Seq[int]) -> str:
        ids = ids[: self.segments.first(ids)]
        return continuation(self.teacher.tokenizer, place.before, ids).rstrip("\n")


class TruthValidity:
    """P(True): the teacher's probability of "yes" against "no" when asked whether the step is correct."""

    def __init__(self, teacher: Generator):
        self.teacher = teacher

    def values(self, proposed: Seq[PlacedStep], step: int, cost: Cost) -> list[float]:
        shown = [
            f"{self.teacher.render(p.example.prompt)}{p.prefix}{proposal.text}{QUESTION}" for p, proposal in proposed
        ]
        scores = self.teacher.loglikelihood([(text, word) for text in shown for word in (" yes", " no")])
        cost.add(teacher_forward_tokens=2 * sum(len(self.teacher.encode(text)) + 1 for text in shown))
        yes, no = [s for s, _ in scores[::2]], [s for s, _ in scores[1::2]]
        return [1 / (1 + math.exp(min(b - a, 700.0))) for a, b in zip(yes, no, strict=True)]


class Remembered:
    """An estimator that depends only on fixed models, with its values cached by content in a file.

    A cached value is charged like a computed one: tokens of a call are distributed evenly over its steps.
    """

    def __init__(self, inner: Any, file: CacheFile):
        self.inner, self.file = inner, file
        self.known: dict[str, tuple[float, float, float]] = {}
        self.known |= file.read(_remembered)

    def values(self, proposed: Seq[PlacedStep], step: int, cost: Cost) -> list[float]:
        keys = [digest([place.before, proposal.ids, place.example.id]) for place, proposal in proposed]
        fresh = {key: pair for key, pair in zip(keys, proposed, strict=True) if key not in self.known}
        if fresh:
            spent = Cost()
            values = self.inner.values(list(fresh.values()), step, spent)
            each = spent.teacher_forward_tokens / len(fresh), spent.generated_tokens / len(fresh)
            new = {key: (value, *each) for key, value in zip(fresh, values, strict=True)}
            self.known |= new
            names = ("value", "read", "made")
            self.file.add({key: dict(zip(names, row, strict=True)) for key, row in new.items() if row[0] == row[0]})
        rows = [self.known[key] for key in keys]
        cost.add(
            teacher_forward_tokens=round(math.fsum(row[1] for row in rows)),
            generated_tokens=round(math.fsum(row[2] for row in rows)),
        )
        return [row[0] for row in rows]


def spend(cost: Cost, generated: Seq[Any], by_teacher: bool) -> None:
    """Charges generated texts; the teacher's texts also pass through the teacher."""
    tokens = sum(g.tokens for g in generated)
    cost.add(generated_tokens=tokens)
    if by_teacher:
        cost.add(teacher_forward_tokens=tokens + sum(g.prompt_tokens for g in generated))


def _key(place: Place, proposal: ProposedStep) -> tuple[int, int, tuple[int, ...]]:
    return place.sequence, place.start, proposal.ids


def _remembered(row: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """Value and tokens of a cached line, or None if it has no numbers."""
    numbers = [row.get(name) for name in ("value", "read", "made")]
    sound = [float(number) for number in numbers if isinstance(number, int | float)]
    return (sound[0], sound[1], sound[2]) if len(sound) == 3 else None
