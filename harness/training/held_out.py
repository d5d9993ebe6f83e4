"""Measurements on reference texts that no step trains on: the held-out divergence and the validation loss.

Losses of different methods, and of one method on different sources of text, are different quantities. The divergence is
the same for all: the mean over the response tokens of data.validation of KL(p || q) in nats, p the teacher's
distribution and q the student's over the shared vocabulary. The validation loss belongs to methods whose schedule
depends on it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator

from harness.losses import forward_kl
from harness.method import Method
from harness.models import loading
from harness.models.generate import Generator
from harness.records.curves import HELD_OUT
from harness.training.batching import Batch, TrainingSequence, collate, micro_batches
from harness.training.distributed import Replicated
from harness.training.job import TrainingJob
from harness.training.report import Cost
from harness.training.signal_contract import TeacherSignal
from harness.training.signals import LiveTeacher
from harness.types import Example, Source


class HeldOut:
    """Measures after every ``training.divergence_every`` steps and at the end; never if that is not set.

    It is not charged, because no method requests it and no training depends on it.
    """

    def __init__(
        self,
        job: TrainingJob,
        signal: TeacherSignal | LiveTeacher | None,
        student: Generator,
        vocab: int,
        accelerator: Accelerator,
    ):
        self.every, self.steps = job.recipe.training.divergence_every, job.recipe.training.steps
        self.job, self.vocab, self.accelerator = job, vocab, accelerator
        measures = self.every is not None  # several teachers refuse this, because their signal has no single model
        live = signal.given.live if measures and isinstance(signal, TeacherSignal) else None
        self.teacher = live if isinstance(live, LiveTeacher) else None
        self.batches: list[Batch] = []
        if self.every is not None:
            mine = job.data.validation[accelerator.process_index :: accelerator.num_processes]
            longest = min(job.recipe.training.max_tokens, job.data.longest or job.recipe.training.max_tokens)
            texts = _sequences([student.example_ids(e) for e in mine], longest)
            pad = student.pad_id
            parts = micro_batches(texts, job.recipe.training.micro_batch)
            self.batches = [collate(part, pad, None, accelerator.device) for part in parts]

    def report(self, step: int, student: Replicated) -> dict[str, float]:
        """:data:`HELD_OUT` in nats per token if it is due after step number ``step``, counted from 1."""
        if self.every is None or not (step == self.steps or (self.every and step % self.every == 0)):
            return {}
        if self.teacher is None:  # of a method that needs no signal
            assert self.job.teacher is not None, "the plan locates the teacher of a measured divergence"
            chosen, precision = self.job.recipe.teacher, self.job.recipe.training.precision
            model = loading.load(self.job.teacher, chosen, precision, str(self.accelerator.device))
            self.teacher = LiveTeacher(model, self.vocab, self.accelerator.device)
        sums = torch.zeros(2, dtype=torch.float64, device=self.accelerator.device)
        with student.gathered() as whole, torch.no_grad(), self.accelerator.autocast():
            whole.eval()
            for batch in self.batches:
                values = whole.on_support(batch, self.teacher.read(batch), forward_kl)
                sums += torch.stack([values.double().sum(), torch.tensor(float(len(values)), device=sums.device)])
            whole.train()
        total, tokens = self.accelerator.reduce(sums).tolist()
        return {HELD_OUT: total / max(tokens, 1)}


def _sequences(
    ids: Sequence[tuple[tuple[int, ...], tuple[int, ...], tuple[bool, ...] | None]], longest: int
) -> list[TrainingSequence]:
    """The texts, cut like those of training, without empty ones."""
    sequences = []
    for place, (prompt, response, learnt) in enumerate(ids):
        room = max(longest - len(prompt), 0)
        cut = TrainingSequence(
            prompt, response[:room], Source.DATA, place, place=place, learnt=learnt and learnt[:room]
        )
        sequences += [cut] if cut.places else []
    return sequences


class Validation:
    """The student's loss on the validation examples, every ``needs.validate_every`` steps; otherwise does nothing."""

    def __init__(
        self, method: Method, examples: Sequence[Example], generator: Generator, size: int, accelerator: Accelerator
    ):
        self.every, self.accelerator = method.needs.validate_every, accelerator
        self.batches: list[Batch] = []
        if self.every:
            mine = list(enumerate(examples))[accelerator.process_index :: accelerator.num_processes]
            texts = [_sequence(e, i, generator) for i, e in mine]
            pad = generator.pad_id
            self.batches = [collate(part, pad, None, accelerator.device) for part in micro_batches(texts, size)]

    def report(self, step: int, student: Replicated, cost: Cost) -> dict[str, float]:
        """``validation_loss`` in nats per token if it is due after step number ``step``, counted from 1."""
        if not self.every or step % self.every:
            return {}
        sums = torch.zeros(2, dtype=torch.float64, device=self.accelerator.device)
        with student.gathered() as whole:
            whole.eval()
            for batch in self.batches:
                log_q = whole.log_likelihood(batch)
                sums += torch.stack([-log_q.double().sum(), torch.tensor(float(len(log_q)), device=sums.device)])
                cost.add(student_tokens=batch.tokens)
            whole.train()
        total, tokens = self.accelerator.reduce(sums).tolist()
        return {"validation_loss": total / max(tokens, 1)}


def _sequence(example: Example, place: int, speaker: Generator) -> TrainingSequence:
    prompt, response, learnt = speaker.example_ids(example)
    return TrainingSequence(prompt, response, Source.DATA, place, place=place, learnt=learnt)
