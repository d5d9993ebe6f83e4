"""Collects the text of every optimizer step: reference responses, teacher texts, student samples, replays, joint text.

The examples of a step and the random numbers of its samples depend on (seed, step, example) only. A resumed run, or one
on another number of processes, therefore trains on the same text.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import random
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Sequence as Seq
from typing import Any

from harness.method import Mixture, Speculation, Step
from harness.models.generate import Generated, Generator
from harness.models.joint_sampling import JointGenerator
from harness.models.token_text import Segments
from harness.training.batching import TrainingSequence
from harness.training.job import TrainingJob, examples_of
from harness.training.proposals import Proposals
from harness.training.report import Cost, ValidityReport
from harness.training.student_engine import StudentEngine
from harness.training.teacher_prompt import prompt_for
from harness.training.verdicts import Rewards
from harness.types import Decoding, Source, stable_seed

RENAMED = {"asked": "teacher_prompt", "made": "sampled_at"}  # fields of sequences in checkpoints of earlier versions
LOOKED_AT = 256  # fixed texts that are checked for steps before training


class Rollouts:
    """Makes the sequences of each optimizer step.

    ``student`` samples; :func:`harness.training.teacher.set_up` adds what the method needs of the teacher. ``gather``
    turns this process' list into the list of all processes; inside ``gathered()`` the student's weights are whole on
    every process.
    """

    def __init__(
        self,
        job: TrainingJob,
        student: Generator,
        process: int = 0,
        processes: int = 1,
        gather: Callable[[list[Any]], list[Any]] = lambda mine: mine,
        gathered: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext,
    ):
        self.student, self.data, self.sampling, self.seed = student, job.data, job.recipe.rollout, job.run.seed
        self.batch, self.max_tokens = job.recipe.training.batch, job.recipe.training.max_tokens
        if job.data.longest is not None:
            self.max_tokens = min(self.max_tokens, job.data.longest)
        self.capacity, self.full = job.method.needs.replay, job.method.needs.full
        self.per_epoch, self.steps = job.method.needs.redraw == "epoch", job.recipe.training.steps
        self.examples = examples_of(job.method, job.data, self.steps)
        self.process, self.processes = process, processes
        self.gather, self.gathered = gather, gathered
        self.teacher_texts: Mapping[int, tuple[int, ...]] = {}  # by the prompt's number, in the student's token ids
        self.proposals: Proposals | None = None
        self.joint: JointGenerator | None = None
        self.engine: StudentEngine | None = None  # an engine that replaces the student in this process
        self.rewards: Rewards | None = None
        self.cut = 0  # responses shortened to max_tokens so far
        self.buffer: list[TrainingSequence] = []  # the student's latest responses, equal on all processes
        self.ahead: dict[int, TrainingSequence] = {}  # this process' responses for later steps
        self.drawn = 0  # places of the run with sampled responses, on all processes, with ``Needs.redraw``
        self.together, self.sources = self.sampling.steps_together, job.method.sources
        self.sampled: set[int] = set()  # steps with responses in ``ahead``, equal on all processes
        self._joint_sampling: Mixture | Speculation | None = job.method.needs.joint
        self._encoded: dict[int, tuple[int, ...]] = {}
        self._asking = job.method.needs.asking
        self._teacher_prompts: dict[tuple[bool, int], tuple[int, ...]] = {}
        self._labelled: dict[int, tuple[tuple[int, ...], tuple[int, ...], tuple[bool, ...] | None]] = {}

    def step(self, index: int) -> Step:
        """The optimizer step of that number, as a method sees it."""
        return Step(index, self.steps, self.draw(index), self.epochs(index), self.epochs(self.steps))

    def draw(self, step: int) -> float:
        """Uniform in [0, 1), the same on every process."""
        return random.Random(f"{self.seed}/draw/{step}").random()

    def epochs(self, steps: int) -> float:
        """The number of passes over the method's examples in ``steps`` optimizer steps."""
        return steps * self.batch / max(self.examples, 1)

    def collect(self, step: Step, sources: Seq[Source], cost: Cost) -> list[TrainingSequence]:
        """This process' sequences of a step: ``batch`` prompts over all processes, each once per source.

        A source that appears ``n`` times in a row gives ``n`` responses to every prompt. While the buffer is empty (or
        not full, if the method requires that) a replay samples from the student.
        """
        sequences: list[TrainingSequence] = []
        turn = 0
        # Equal sources in a row are several responses to each prompt, sampled in one call.
        for source, times in ((one, len([*same])) for one, same in itertools.groupby(sources)):
            if source is Source.REPLAY and len(self.buffer) >= (self.capacity if self.full else 1):
                of_source = self._replayed(step.index) * times
            elif source in (Source.STUDENT, Source.REPLAY):
                sample = self._of_epoch if self.per_epoch else self._of_steps
                of_source = sample(step, Source.STUDENT, cost, times)
                self._keep(of_source)
            elif source is Source.MIXED:
                of_source = self._sampled(step, source, cost, times)
            else:
                of_source = [self.fixed(source, i) for i in self._mine(source, step.index)] * times
            self.cut += sum(s.cut for s in of_source)
            # Interleave the processes: place k is the same text whatever the number of processes.
            places = [
                place
                for k in range(turn, turn + times)
                for place in range(k * self.batch + self.process, (k + 1) * self.batch, self.processes)
            ]
            sequences += [dataclasses.replace(s, place=place) for s, place in zip(of_source, places, strict=True)]
            turn += times
        if self.rewards is not None:
            sequences = self.rewards.judge(sequences, self.data.prompts, cost)
        # Proposals sample from the student and score with it, so its weights must be whole here.
        if self.proposals is not None:
            with self.gathered():
                sequences = self.proposals.judge(sequences, self.data.labelled, self.data.prompts, step.index, cost)
        return sequences

    def fixed(self, source: Source, i: int) -> TrainingSequence:
        """The sequence of example ``i`` of a fixed source: its reference response or the teacher's answer."""
        if source is Source.TEACHER:
            return self._sequence(i, self.teacher_texts[i], source)
        if i not in self._labelled:
            self._labelled[i] = self.student.example_ids(self.data.labelled[i])
        prompt, response, learnt = self._labelled[i]
        return self._sequence(i, response, source, prompt=prompt, learnt=learnt)

    def numbers(self, source: Source) -> Seq[int]:
        """The examples of a fixed source that the steps of the run may read, on any process, in order.

        The source of a step may depend on the training itself, so every step counts for each source.
        """
        n, places = self._size(source), self.steps * self.batch
        return range(n) if places >= n else sorted(self._examples(n, range(places)))

    def check_steps(self, segments: Segments, texts: Iterable[Source]) -> list[str]:
        """Warnings about fixed texts that are one step each. Raises BadInput if the unit does not suit them."""
        warnings = []
        for source in sorted({Source.TEACHER, Source.DATA} & set(texts)):
            responses = (self.fixed(source, i).response for i in self.numbers(source)[:LOOKED_AT])
            warnings += segments.check((r for r in responses if r), "teacher" if source is Source.TEACHER else "data")
        return warnings

    def state(self) -> dict[str, Any]:
        """The state for a checkpoint, in plain types, summed over processes. A collective: all of them call it."""
        # Texts drawn ahead belong to one process each; the checkpoint must hold all of them.
        ahead = self.gather([(place, _plain(s)) for place, s in self.ahead.items()])
        return {
            "cut": sum(self.gather([self.cut])),
            "buffer": [_plain(s) for s in self.buffer],
            "ahead": [list(entry) for entry in ahead],
            "drawn": self.drawn,
            "sampled": sorted(self.sampled),
        } | ({} if self.proposals is None else {"validity": self.validity()})

    def validity(self) -> dict[str, Any]:
        """The report on proposals so far, of all processes. A collective: all of them call it."""
        assert self.proposals is not None, "only with proposals"
        return ValidityReport.sum(self.gather([self.proposals.report.state()]))

    def load_state(self, state: dict[str, Any]) -> None:
        """Restores :meth:`state` on any number of processes; the first one continues the count of all."""
        self.cut = 0 if self.process else state["cut"]
        self.buffer = [_from_plain(row) for row in state["buffer"]]
        # A checkpoint of an earlier version has neither, and belongs to a method that draws nothing ahead.
        self.ahead = {place: _from_plain(row) for place, row in state.get("ahead", ()) if self._is_mine(place)}
        self.drawn, self.sampled = state.get("drawn", 0), set(state.get("sampled", ()))
        if self.proposals is not None and "validity" in state and not self.process:
            self.proposals.report.load(state["validity"])

    def _mine(self, source: Source, step: int) -> list[int]:
        """This process' examples of a step."""
        places = range(step * self.batch, (step + 1) * self.batch)
        return self._examples(self._size(source), places)[self.process :: self.processes]

    def _size(self, source: Source) -> int:
        return len(self.data.labelled if source is Source.DATA else self.data.prompts)

    def _is_mine(self, place: int) -> bool:
        """Whether this process trains on the response at ``place`` of the run."""
        return place % self.batch % self.processes == self.process

    def _examples(self, n: int, places: range) -> list[int]:
        """Indices of the examples at places of the run: every epoch is a new permutation."""
        chosen = []
        for place in places:
            epoch, offset = divmod(place, n)
            # One permutation per epoch, from seed and epoch only, so that a resumed run sees the same order.
            if not chosen or offset == 0:
                order = random.Random(f"{self.seed}/order/{epoch}").sample(range(n), n)
            chosen.append(order[offset])
        return chosen

    def _sampled(self, step: Step, source: Source, cost: Cost, times: int = 1) -> list[TrainingSequence]:
        """Responses sampled now, from the student or jointly: ``times`` per prompt, first responses first."""
        return self._answers(self._mine(source, step.index), step, source, cost, times)

    def _of_epoch(self, step: Step, source: Source, cost: Cost, times: int = 1) -> list[TrainingSequence]:
        """This process' responses of a step; the first step of an epoch samples all that the run needs of it."""
        n, first, end = len(self.data.prompts), step.index * self.batch, (step.index + 1) * self.batch
        whole = self.steps * self.batch  # places of the run: further responses to their prompts follow these
        # Every process draws equally far ahead, so that all of them gather the weights at the same steps.
        if end > self.drawn:
            places = range(self.drawn, min(-(-end // n) * n, whole))
            mine = [(p, i) for p, i in zip(places, self._examples(n, places), strict=True) if self._is_mine(p)]
            responses = self._answers([i for _, i in mine], step, source, cost, times)
            keys = [place + k * whole for k in range(times) for place, _ in mine]
            self.ahead |= dict(zip(keys, responses, strict=True))
            self.drawn = places.stop
        own = range(first + self.process, end, self.processes)
        return [self.ahead.pop(place + k * whole) for k in range(times) for place in own]

    def _of_steps(self, step: Step, source: Source, cost: Cost, times: int = 1) -> list[TrainingSequence]:
        """This process' responses of a step, sampled together with those of the next steps that need some.

        The sources of a method may depend on the training: a step that needs unexpected responses samples them itself,
        and unused responses are dropped.
        """
        if self.together == 1:
            return self._sampled(step, source, cost, times)
        whole = self.steps * self.batch  # as in _of_epoch
        keys = [place + k * whole for k in range(times) for place, _ in self._places(step.index)]
        if step.index not in self.sampled or not all(key in self.ahead for key in keys):
            last = min(step.index + self.together, self.steps)
            # Draw for the steps that will need student text as far as the method can tell now.
            steps = [step.index, *(i for i in range(step.index + 1, last) if self._asks(i))]
            chosen = [(place, own, i) for own in steps for place, i in self._places(own)]
            responses = self._answers([i for *_, i in chosen], step, source, cost, times, [own for _, own, _ in chosen])
            self.ahead = dict(zip((p + k * whole for k in range(times) for p, *_ in chosen), responses, strict=True))
            self.sampled = set(steps)
        self.sampled.discard(step.index)
        return [self.ahead.pop(key) for key in keys]

    def _asks(self, index: int) -> bool:
        """Whether a later step will need the student's text, as far as known now."""
        sources = set(self.sources(self.step(index)))
        enough = len(self.buffer) >= (self.capacity if self.full else 1)
        return Source.STUDENT in sources or (Source.REPLAY in sources and not enough)

    def _places(self, index: int) -> list[tuple[int, int]]:
        """This process' places of a step in the run, and the prompts there."""
        places = range(index * self.batch + self.process, (index + 1) * self.batch, self.processes)
        return list(zip(places, self._mine(Source.STUDENT, index), strict=True))

    def _answers(
        self,
        chosen: list[int],
        step: Step,
        source: Source,
        cost: Cost,
        times: int = 1,
        seeds_of: list[int] | None = None,
    ) -> list[TrainingSequence]:
        """Responses to the examples ``chosen``, sampled now, ``times`` each.

        ``seeds_of``: the step that gives each its seed, by default this one.
        """
        decoding = Decoding(self.sampling.temperature, self.sampling.top_p, self.sampling.max_new_tokens)
        # The first response to a prompt does not depend on whether others follow.
        further = [(k,) if k else () for k in range(times) for _ in chosen]
        own = (seeds_of or [step.index] * len(chosen)) * times
        chosen = chosen * times
        ids = [self.data.prompts[i].id for i in chosen]
        seeds = [stable_seed(self.seed, at, name, *k) for at, name, k in zip(own, ids, further, strict=True)]
        prompts = [self._prompt(i) for i in chosen]
        generated: list[Generated]
        weights_step = step.index  # the step whose weights generate the texts
        if self.engine is not None and source is not Source.MIXED:
            weights_step = self.engine.follow(step.index)
            generated = self.engine.continue_ids(prompts, decoding, seeds)
        else:
            with self.gathered():
                if source is Source.MIXED:
                    assert self.joint is not None and self._joint_sampling is not None, (
                        "the method needs joint sampling"
                    )
                    generated = self.joint.continue_ids(prompts, self._joint_sampling, decoding, seeds)
                    cost.add(teacher_forward_tokens=sum(g.tokens + g.prompt_tokens for g in generated))
                else:
                    generated = self.student.continue_ids(prompts, decoding, seeds)
        cost.add(generated_tokens=sum(g.tokens for g in generated))
        return [
            self._sequence(i, g.ids, source, g.log_probs, weights_step) for i, g in zip(chosen, generated, strict=True)
        ]

    def _keep(self, sequences: list[TrainingSequence]) -> None:
        """Adds the step's responses to the buffer, in the order of a single process."""
        if not self.capacity:
            return
        everyone = self.gather([(self.process + self.processes * i, s) for i, s in enumerate(sequences)])
        # Sorted by place, so that the buffer is the same on every process and for any number of them.
        self.buffer += [s for _, s in sorted(everyone, key=lambda pair: pair[0]) if s.response]
        del self.buffer[: -self.capacity]

    def _replayed(self, step: int) -> list[TrainingSequence]:
        """This process' share of ``batch`` responses from the buffer, without replacement if it holds enough."""
        dice = random.Random(f"{self.seed}/replay/{step}")
        enough = len(self.buffer) >= self.batch
        chosen = dice.sample(self.buffer, self.batch) if enough else dice.choices(self.buffer, k=self.batch)
        return [dataclasses.replace(s, source=Source.REPLAY) for s in chosen[self.process :: self.processes]]

    def _sequence(
        self,
        i: int,
        response: tuple[int, ...],
        source: Source,
        log_probs: tuple[float, ...] | None = None,
        sampled_at: int | None = None,
        prompt: tuple[int, ...] | None = None,
        learnt: tuple[bool, ...] | None = None,
    ) -> TrainingSequence:
        prompt = self._prompt(i) if prompt is None else prompt
        room = max(self.max_tokens - len(prompt), 0)
        return TrainingSequence(
            prompt,
            response[:room],
            source,
            i,
            log_probs and log_probs[:room],
            sampled_at=sampled_at,
            cut=len(response) > room,
            learnt=learnt and learnt[:room],
            teacher_prompt=self._teacher_prompt(i, source),
        )

    def _teacher_prompt(self, i: int, source: Source) -> tuple[int, ...] | None:
        """The ids of the teacher's own prompt for an example; None if it reads the student's."""
        if self._asking is None or not self._asking.template:
            return None
        key = (source is Source.DATA, i)
        if key not in self._teacher_prompts:
            example = (self.data.labelled if source is Source.DATA else self.data.prompts)[i]
            self._teacher_prompts[key] = tuple(
                self.student.encode(self.student.render(prompt_for(example, self._asking)))
            )
        return self._teacher_prompts[key]

    def _prompt(self, i: int) -> tuple[int, ...]:
        """The ids of an unlabelled prompt."""
        if i not in self._encoded:
            self._encoded[i] = tuple(self.student.encode(self.student.render(self.data.prompts[i].prompt)))
        return self._encoded[i]


def _plain(sequence: TrainingSequence) -> dict[str, Any]:
    return dataclasses.asdict(sequence) | {"source": str(sequence.source)}


def _from_plain(row: dict[str, Any]) -> TrainingSequence:
    fields: dict[str, Any] = {RENAMED.get(name, name): value for name, value in row.items()}
    fields["source"] = Source(row["source"])
    return TrainingSequence(**fields)
