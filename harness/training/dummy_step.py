"""A forward and backward pass that is worth nothing, for a process that has fewer micro-batches than another.

Where the student is cut over the processes, weights are gathered and gradients exchanged layer by layer in every pass:
by all of them, or the others wait for ever. What passes here moves no weight and is charged to nobody.
"""

from __future__ import annotations

from torch import Tensor, nn

from harness.method import Method, Step, Tokens
from harness.training.batching import Batch
from harness.training.signals import NoTeacher


class ZeroObjective(Method):
    """Teaches nothing: the gradient of every parameter is 0."""

    name = "idle"

    def objective(self, tokens: Tokens) -> Tensor:
        return tokens.logits[:, 0] * 0.0


def dummy_step(wrapped: nn.Module, batch: Batch, step: Step) -> None:
    """One pass over a batch that this process has already read."""
    total, _ = wrapped(batch, ZeroObjective(), NoTeacher(), step, None)
    total.backward()
