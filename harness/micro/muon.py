"""Muon (K. Jordan et al., 2024): momentum whose update is orthogonalised, for the weight matrices inside.

It needs about a third of AdamW's steps here. ``torch.optim.Muon`` iterates in bfloat16, which processors
without that type emulate slowly, so the update is written out in float32.
"""

from collections.abc import Iterable

import torch

# Newton-Schulz coefficients of the public reference: five rounds bring all singular values near 1.
QUINTIC = (3.4445, -4.7750, 2.0315)
ROUNDS = 5


class Muon(torch.optim.Optimizer):
    """W <- W - lr·(0.2·sqrt(max(rows, columns))·orthogonalise(nesterov(gradient)) + weight_decay·W)."""

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ):
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                average = self.state[weight].setdefault("average", torch.zeros_like(weight))
                average.lerp_(weight.grad, 1 - group["momentum"])
                update = orthogonalise(weight.grad.lerp(average, group["momentum"]))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                weight.add_(update, alpha=-group["lr"] * 0.2 * max(weight.shape) ** 0.5)


def orthogonalise(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix [R, C] with its singular values pushed towards 1, its singular vectors kept."""
    a, b, c = QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.T if tall else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(ROUNDS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.T if tall else x
