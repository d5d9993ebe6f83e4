"""Whose text a step trains on: reference responses, teacher samples, or the student's own, in any mix.

Which examples a step sees and which random numbers its samples use are functions of (seed, step, example)
alone. A resumed run, or one split over other processes, therefore trains on the same text.
"""

from __future__ import annotations

import random
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field

from harness.method import Step
from harness.models.generate import Generator
from harness.recipe import Sampling
from harness.seeds import stable_seed
from harness.training.batching import Sequence
from harness.training.cost import Cost
from harness.training.proposals import Proposals
from harness.types import Decoding, Example, Source


@dataclass
class Rollouts:
    """Makes the sequences of each optimizer step. ``teacher_texts`` answer ``prompts`` one to one, as ids."""

    student: Generator
    prompts: Seq[Example]
    labelled: Seq[Example]
    sampling: Sampling
    seed: int
    batch: int
    max_tokens: int
    teacher_texts: Seq[tuple[int, ...]] = ()
    proposals: Proposals | None = None
    process: int = 0
    processes: int = 1
    cut: int = 0  # responses shortened to max_tokens so far
    _encoded: dict[tuple[bool, int], tuple[int, ...]] = field(default_factory=dict, repr=False)

    def draw(self, step: int) -> float:
        """Uniform in [0, 1), the same on every process."""
        return random.Random(f"{self.seed}/draw/{step}").random()

    def collect(self, step: Step, sources: Seq[Source], cost: Cost) -> list[Sequence]:
        """This process' sequences of a step: ``batch`` prompts over all processes, each once per source."""
        found: list[Sequence] = []
        for source in sources:
            pool = self.labelled if source is Source.DATA else self.prompts
            chosen = self._examples(len(pool), step.index)[self.process :: self.processes]
            if source is Source.STUDENT:
                found += self._from_student(chosen, step, cost)
            elif source is Source.TEACHER:
                found += [self._sequence(i, self.teacher_texts[i], source) for i in chosen]
            else:
                found += [self._sequence(i, self._reference(i), source) for i in chosen]
        if self.proposals is not None:
            found = self.proposals.judge(found, self.labelled, self.prompts, step.index, cost)
        return found

    def _examples(self, n: int, step: int) -> list[int]:
        """Indices of the step's examples: every epoch is a fresh permutation."""
        chosen = []
        for place in range(step * self.batch, (step + 1) * self.batch):
            epoch, offset = divmod(place, n)
            if not chosen or offset == 0:
                order = random.Random(f"{self.seed}/order/{epoch}").sample(range(n), n)
            chosen.append(order[offset])
        return chosen

    def _from_student(self, chosen: list[int], step: Step, cost: Cost) -> list[Sequence]:
        texts = [self.student.render(self.prompts[i].prompt) for i in chosen]
        decoding = Decoding(self.sampling.temperature, self.sampling.top_p, self.sampling.max_new_tokens)
        seeds = [stable_seed(self.seed, step.index, self.prompts[i].id) for i in chosen]
        made = self.student.generate(texts, decoding, seeds)
        cost.add(generated_tokens=sum(g.tokens for g in made))
        return [self._sequence(i, g.ids, Source.STUDENT, g.log_probs) for i, g in zip(chosen, made, strict=True)]

    def _sequence(self, i: int, response: tuple[int, ...], source: Source, log_probs=None) -> Sequence:
        prompt = self._prompt(i, source is Source.DATA)
        room = self.max_tokens - len(prompt)
        if len(response) > room:
            self.cut += 1
            response, log_probs = response[: max(room, 1)], log_probs and log_probs[: max(room, 1)]
        return Sequence(prompt, response, source, i, log_probs)

    def _prompt(self, i: int, labelled: bool) -> tuple[int, ...]:
        key = (labelled, i)
        if key not in self._encoded:
            example = (self.labelled if labelled else self.prompts)[i]
            self._encoded[key] = tuple(self.student.encode(self.student.render(example.prompt)))
        return self._encoded[key]

    def _reference(self, i: int) -> tuple[int, ...]:
        return self.student.response_ids(self.labelled[i].response, ended=True)
