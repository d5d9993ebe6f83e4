"""A forward and backward pass with zero gradient, so that ranks with fewer micro-batches still join FSDP's collectives.

FSDP gathers weights and reduce-scatters gradients layer by layer in every pass, and every rank must take part. A dummy
step moves no weight and is charged to nobody.
"""

from __future__ import annotations

from torch import Tensor, nn

from harness.method import Method, Step, Tokens
from harness.training.batching import Batch
from harness.training.signals import NoTeacher


class ZeroObjective(Method):
    """An objective whose gradient is 0 for every parameter."""

    name = "zero objective"

    def objective(self, tokens: Tokens) -> Tensor:
        return tokens.logits[:, 0] * 0.0


def dummy_step(wrapped: nn.Module, batch: Batch, step: Step) -> None:
    """One pass over a batch that this process has already trained on."""
    total, _ = wrapped(batch, ZeroObjective(), NoTeacher(), step, None)
    total.backward()
