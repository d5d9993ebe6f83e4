"""Relaxed on-policy distillation (REOPOLD, Ko et al. 2026, https://arxiv.org/abs/2603.11137).

    L = -sum_t M_t R'_t log q(y_t) / sum_t M_t,    R'_t = max(R_t, floor),  R_t = sg(log p(y_t) - log q(y_t)),
    floor = log(lambda) / (1 - lambda)

p teacher, q student on its own text, sg stop-gradient. The reward of a word that the teacher all but rules out is cut
off at the floor, -2.56 at lambda = 0.1. The mask M changes once:

exploration   M = 1 where R >= floor: words whose reward would be cut are left out
refinement    M = 1 for the ``share`` of the step's tokens at which the student's entropy is highest

The paper changes after 50 of 100 steps. The share is of all tokens of the optimizer step; its threshold is the quantile
with linear interpolation, as in the port of SaFo-Lab/PW-OPSD. The control deals the mask out to other tokens.
"""

import math
from dataclasses import dataclass

import torch

from harness.losses import cross_entropy
from harness.method import Method, Needs, Step, Tokens, WholeStep
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    mixture: float = option(0.1, "lambda, which sets the floor", low=0.0001, high=0.9999, source="REOPOLD: 0.1")
    share: float = option(0.2, "of tokens in refinement", low=0.001, high=1, source="REOPOLD: 0.2")
    switch: float = option(
        0.5, "share of the run that is exploration", low=0, high=1, source="REOPOLD: 50 of 100 steps"
    )
    shuffle: bool = option(False, "control: the mask falls on shuffled tokens of the optimizer step")


class REOPOLD(Method):
    """Policy gradient on the student's samples, with a floor on the reward, on fewer and fewer tokens."""

    name, paper, Config = "reopold", "https://arxiv.org/abs/2603.11137", Config
    needs = Needs(teacher="signal", exact=True, step_features=True)

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.STUDENT,)

    @property
    def floor(self) -> float:
        return math.log(self.config.mixture) / (1 - self.config.mixture)

    def reward(self, tokens: Tokens):
        log_p, log_q = (-cross_entropy(z, tokens.labels) for z in (tokens.teacher, tokens.student.detach()))
        return log_p - log_q

    def measure(self, tokens: Tokens):
        """[N, 1] whether the reward reaches the floor, or in refinement the student's entropy."""
        if tokens.step.index < self.config.switch * tokens.step.total:
            return (self.reward(tokens) >= self.floor).float()[:, None]
        return cross_entropy(tokens.student, tokens.student)[:, None]

    def step_features(self, values, whole: WholeStep):
        if whole.step.index < self.config.switch * whole.step.total:
            return values
        # numpy's definition of the quantile by hand: torch.quantile refuses more than 16 million values.
        ordered, place = values[:, 0].sort().values, (1 - self.config.share) * (len(values) - 1)
        low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
        return (values >= low + (high - low) * (place - math.floor(place))).float()

    def weight(self, tokens: Tokens):
        return tokens.step_features[:, 0]

    def objective(self, tokens: Tokens):
        reward = self.reward(tokens)
        tokens.metrics.update(reward=reward, at_floor=(reward < self.floor).float())
        return torch.clamp(reward, min=self.floor) * cross_entropy(tokens.student, tokens.labels)

    def card(self):
        c = self.config
        return {
            "divergence": f"reverse KL, one sample, reward of at least {self.floor:.3g}",
            "token_weights": f"reward above the floor, then top {c.share:g} by entropy"
            + ("/shuffled" if c.shuffle else ""),
        }
