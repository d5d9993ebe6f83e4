"""The difference between the probabilities of a sampling engine and of the student, and its correction.

With q the student in training and e the engine that sampled token y, both at temperature 1, every token of a fresh text
has the gap |log q(y) - log e(y)|. It is rounding if the engine has the weights of this step, and also the training
since then if it has older ones. With ``rollout.importance_cap`` = C the objective of a token is weighted by
min(q(y) / e(y), C), without gradient through that number (truncated importance sampling, Ionides 2008); C bounds
the variance. The mean over tokens still divides by their number.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.losses import cross_entropy


class EngineGap:
    """The gap of one optimizer step. Not a dataclass, because wrappers copy those and this one accumulates."""

    def __init__(self, cap: float | None = None):
        self.cap = cap
        self._parts: list[Tensor] = []  # per slice: tokens, sum and largest of the gaps

    @torch.no_grad()
    def weights(self, logits: Tensor, labels: Tensor, sampler_log_prob: Tensor, fresh: Tensor) -> Tensor | None:
        """[n] the factor on the objective of n tokens; None for 1.

        ``logits`` [n, V] are q's, ``sampler_log_prob`` [n] is log e(y) of ``labels`` [n], and ``fresh`` [n] bool marks
        the text that the student sampled for this step.
        """
        # A token without a known log e(y), or of older text, has no gap; leave it out, because NaN would spread through
        # the sums.
        known = fresh & sampler_log_prob.isfinite()
        ratio = torch.where(known, -cross_entropy(logits, labels) - sampler_log_prob, 0.0)
        self._parts.append(torch.stack([known.sum().double(), ratio.abs().sum().double(), ratio.abs().max().double()]))
        return None if self.cap is None else ratio.exp().clamp_max(self.cap)

    def report(self, gather: Callable[[list[Any]], list[Any]]) -> dict[str, float]:
        """Mean and largest gap of the step in nats, over all processes. A collective; empty if none is known."""
        own = torch.stack(self._parts).cpu() if self._parts else torch.zeros(1, 3)
        every = gather([(float(own[:, 0].sum()), float(own[:, 1].sum()), float(own[:, 2].max()))])
        tokens = sum(part[0] for part in every)
        if not tokens:
            return {}
        return {
            "engine_gap_mean": sum(part[1] for part in every) / tokens,
            "engine_gap_max": max(part[2] for part in every),
        }


def summary(curve: Sequence[dict[str, float]]) -> dict[str, float]:
    """The gap over a training: the mean over steps and the overall maximum."""
    steps = [row for row in curve if "engine_gap_mean" in row]
    if not steps:
        return {}
    mean = sum(row["engine_gap_mean"] for row in steps) / len(steps)
    return {"gap_mean": mean, "gap_max": max(row["engine_gap_max"] for row in steps)}
