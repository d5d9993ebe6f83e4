"""A student that teaches itself: with its current weights, or with a moving average."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness.training.batching import Batch
from harness.training.signals import LiveTeacher


class SelfTeacher(LiveTeacher):
    """The student with its current weights, without gradient and dropout."""

    @torch.no_grad()
    def hidden(self, batch: Batch, rows: list[int] | None = None) -> Tensor:
        training = self.model.training
        self.model.eval()
        try:
            return super().hidden(batch, rows)
        finally:
            self.model.train(training)


class MovingTeacher:
    """An exponential moving average of the student: theta <- decay theta + (1 - decay) student, after every step."""

    def __init__(self, student: PreTrainedModel, decay: float):
        self.student, self.decay = student, decay
        self.model = copy.deepcopy(student).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self) -> None:
        for mine, theirs in zip(self.model.parameters(), self.student.parameters(), strict=True):
            mine.lerp_(theirs.to(mine.dtype), 1 - self.decay)

    def state(self) -> dict[str, Any]:
        """The weights, for a checkpoint."""
        return {name: tensor.clone() for name, tensor in self.model.state_dict().items()}

    def load(self, state: Mapping[str, Any]) -> None:
        self.model.load_state_dict(state)
