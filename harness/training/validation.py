"""The student's loss on held-out reference responses, for methods whose schedule depends on it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from accelerate import Accelerator

from harness.method import Method
from harness.models.generate import Generator
from harness.training.batching import Batch, collate, micro_batches
from harness.training.batching import TrainingSequence as Text
from harness.training.cost import Cost
from harness.training.distributed import Replicated
from harness.types import Example, Source


class Validation:
    """Measures every ``needs.validate_every`` steps; does nothing for methods that do not ask for it."""

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


def _sequence(example: Example, place: int, speaker: Generator) -> Text:
    prompt, response, learnt = speaker.example_ids(example)
    return Text(prompt, response, Source.DATA, place, place=place, learnt=learnt)
