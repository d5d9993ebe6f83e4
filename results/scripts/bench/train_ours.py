"""Our side of the `train` benchmark: the parts of the training loop, in its order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from harness import registry
from harness.method import Step
from harness.models.generate import Generator
from harness.options import build
from harness.training.batching import TrainingSequence, collate, micro_batches
from harness.training.objective import Student
from harness.training.signals import HiddenStateLogits, LiveTeacher
from harness.types import Decoding, Source
from results.scripts.bench.train_models import pair

MICRO_BATCH = 8  # sequences of like length in one forward pass


def prepare(spec: dict[str, Any]) -> Callable[[str], tuple[float, int]]:
    """The step; see :func:`results.scripts.bench.train.side`."""
    model, teacher_model, tokenizer = pair(spec["models"])
    method_class = registry.find(registry.METHODS, "jsd")
    method, at = method_class(build(method_class.Config, {"beta": 0.5}, "jsd")), Step(0, 2, 0.5)
    vocab = model.config.vocab_size
    student, teacher = Student(model, vocab), LiveTeacher(teacher_model, vocab)
    optimizer = torch.optim.AdamW(student.parameters(), lr=1e-6)
    generator, kept, seeds = Generator(model, tokenizer), [], iter(range(10**9))
    decoding = Decoding(1.0, 1.0, spec["new"])
    fixed = [
        TrainingSequence(tuple(p), tuple(r), Source.DATA, i)
        for i, (p, r) in enumerate(zip(spec["prompts"], spec["responses"], strict=True))
    ]

    def step(kind: str) -> tuple[float, int]:
        sequences, tokens = fixed, 0
        if kind == "own":
            model.eval()
            made = generator.continue_ids(spec["prompts"], decoding, [next(seeds) for _ in fixed])
            tokens = sum(g.tokens for g in made)
            sequences = [
                TrainingSequence(s.prompt, g.ids, Source.STUDENT, s.example, g.log_probs)
                for s, g in zip(fixed, made, strict=True)
            ]
        model.train()
        value = weight = 0.0
        for i, part in enumerate(micro_batches(sequences, MICRO_BATCH)):
            batch = collate(part, 0, None, "cpu")
            if kind == "cached" and len(kept) > i:
                reading = HiddenStateLogits(kept[i], teacher.head)
            else:
                reading = teacher.read(batch)
                if kind == "cached":
                    kept.append(reading.hidden)
            total, sums = student(batch, method, reading, at, None)
            total.backward()
            value, weight = value + float(sums.value), weight + float(sums.weight)
        for parameter in student.parameters():
            if parameter.grad is not None:
                parameter.grad /= weight
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        if kind != "loss":
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return value / weight, tokens

    return step
