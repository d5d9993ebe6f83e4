"""The Kullback-Leibler divergence of two distributions given as log-probabilities, with custom gradients.

It has its own file because defining its class imports torch, and the card of a
method reads the other divergences without torch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class ExactKL(torch.autograd.Function):
    """[N] KL(p || q) = sum p log(p / q) + q - p of log-probabilities, with both gradients formed in the forward pass.

    q - p sums to 0 in exact arithmetic. In fp32 it cancels the errors of the two normalisers, 1e-5 nats at
    V = 150,000, which would make the KL of near-equal distributions negative.
    """

    @staticmethod
    def forward(ctx, log_p: Tensor, log_q: Tensor) -> Tensor:
        p, (wants_p, wants_q) = log_p.exp(), ctx.needs_input_grad
        by_log_p = (log_p - log_q).mul_(p).masked_fill_(p == 0, 0)
        by_log_q = log_q.exp().sub_(p)
        ctx.save_for_backward(by_log_p if wants_p else None, by_log_q if wants_q else None)
        return (by_log_p + by_log_q).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        return tuple(None if by is None else grad[..., None] * by for by in ctx.saved_tensors)
