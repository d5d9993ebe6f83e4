"""Temporally adaptive interpolated distillation (TAID, Shing et al. 2025, https://arxiv.org/abs/2501.16937).

    L = (1/N) sum_t KL(p^r_t || q_t),      p^r = softmax((1 - r) sg(z_S) + r z_T)
    m <- momentum m + (1 - momentum) (L_before - L) / L_before
    r <- min(end, max(linear(step), r + rate sigmoid(m) (1 - r)))

q student, z_S and z_T the logits of student and teacher, r the interpolation (state ``ratio``, the paper's t), sg
stop-gradient. The target starts near the student and moves to the teacher; r = 1 is the forward KL. r is updated once
per optimizer step, from the loss of the whole step over all processes; the released code updates it at every
micro-batch from the local loss, so its values differ between processes.

taid@release     m follows the cross-entropy -sum p^r log q, which also depends on the entropy of the target
taid@stablelm    the initial r of the paper's StableLM pair
"""

from dataclasses import dataclass
from math import exp

import torch

from harness.losses import cross_entropy, forward_kl
from harness.method import Method, Needs, Step, Tokens
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    start: float = option(0.4, "r at the first step", low=0, high=1, source="TAID: t_start 0.4")
    end: float = option(1.0, "largest r", low=0, high=1, source="TAID: t_end 1")
    rate: float = option(5e-4, "alpha, of the adaptive part", low=0, high=1, source="TAID: 5e-4")
    momentum: float = option(0.99, "beta, of m", low=0, high=1, source="TAID: 0.99")
    follow: str = option("kl", "what m follows", choices=("kl", "cross_entropy"), source="paper, algorithm 1")
    text: str = option("teacher", "fixed text to distil on", choices=("teacher", "data"), source="as kd; TAID: data")
    temperature: float = option(1.0, "tau, of both logits", low=0.05, high=100, source="TAID: 1")


class TAID(Method):
    """Forward KL to a target that moves from the student to the teacher."""

    name, paper, Config = "taid", "https://arxiv.org/abs/2501.16937", Config
    needs = Needs(teacher="signal", exact=True)
    variants = {"release": {"follow": "cross_entropy", "text": "data"}, "stablelm": {"start": 0.2}}

    @property
    def ratio(self) -> float:
        return self.state.get("ratio", self.config.start)

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source(self.config.text),)

    def objective(self, tokens: Tokens):
        r, q, tau = self.ratio, tokens.student, self.config.temperature
        # Interpolate in float32 at least: in bfloat16 the target would lose small changes of r. All are [N, V].
        own, teacher = (z if z.dtype == torch.float64 else z.float() for z in (q.detach(), tokens.teacher))
        target = (1 - r) * own + r * teacher
        value = forward_kl(q, target, temperature=tau)
        tokens.metrics["cross_entropy"] = cross_entropy(q.detach(), target, temperature=tau)
        tokens.metrics["ratio"] = value.new_full(value.shape, r)
        return value

    def after_step(self, step: Step, report):
        c, now = self.config, report["loss" if self.config.follow == "kl" else "cross_entropy"]
        before = self.state.get("followed")
        momentum = self.state.get("momentum", 0.0)
        linear = c.start + (c.end - c.start) * (step.index + 1) / step.total
        moved = self.ratio
        # The adaptive part needs a loss to compare with, so it starts at the second step.
        if before is not None:
            gain = (before - now) / before if before else 0.0
            momentum = c.momentum * momentum + (1 - c.momentum) * gain
            moved += c.rate / (1 + exp(-max(-50.0, min(50.0, momentum)))) * (1 - moved)
        self.state = {"ratio": min(c.end, max(linear, moved)), "followed": now, "momentum": momentum}

    def card(self):
        c = self.config
        return {
            "divergence": f"forward KL to an interpolated target, r from {c.start:g} to {c.end:g}, by {c.follow}",
            "loss_temperature": c.temperature,
        }
