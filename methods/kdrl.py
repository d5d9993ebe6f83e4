"""Distillation and reinforcement learning at once (KDRL, Xu et al. 2025, https://arxiv.org/abs/2506.02208).

    L = -J_GRPO + beta (1/N) sum_t 1/2 (log q(y_t) - log p(y_t))^2,      y ~ q
    J_GRPO = (1/N) sum_t min(r_t A, clip(r_t) A),   A = (R - mean of the group) / standard deviation of the group

p teacher, q student, R the grader's score. The second term is the estimator k2 of KL(q || p): on texts that the student
samples at this step its gradient is that of the reverse KL, which its value is not. beta falls from ``beta`` to
``beta_end`` in a straight line over the run. A, r and the clip are those of grpo; where the text leaves GRPO's details
open they are TRL's.

Two pairs of constants are in circulation, and the paper's full text was not available to us. 0.2 falling to 0.002 is
what a reading of the paper for later comparisons notes, and the default. A public summary of the first version
(aitrendblend.com/kdrl-llm-reasoning-breakthrough) says 0.005 falling to 0.001: ``beta=0.005 beta_end=0.001``.

kdrl@wrong   the teacher corrects only the texts that the grader does not find right (its reward-guided masking)
kdrl@k3      the estimator k3, p/q - log(p/q) - 1, whose gradient is another one's
"""

from dataclasses import dataclass

import torch
from harness.methods._rewards import credit, log_prob, surrogate

from harness.losses import cross_entropy
from harness.method import Method, Needs, Step, Tokens, WholeStep
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    beta: float = option(0.2, "weight of the teacher at the first step", low=0, source="KDRL: 0.2, see above")
    beta_end: float = option(0.002, "and at the last", low=0, source="KDRL: 0.002, see above")
    estimator: str = option("k2", "of the reverse KL", choices=("k2", "k3"), source="KDRL: k2")
    taught: str = option("all", "the texts that the teacher corrects", choices=("all", "wrong"), source="KDRL")
    group: int = option(8, "texts per prompt, compared with each other", low=2, source="TRL: 8")
    scale: str = option("group", "deviation that divides A", choices=("group", "step", "none"), source="TRL")
    clip: float = option(0.2, "of the ratio, below and above 1", low=0, high=1, source="TRL: 0.2")


class KDRL(Method):
    """Rewards from the data's grader, plus the reverse KL to the teacher on the same texts."""

    name, paper, Config = "kdrl", "https://arxiv.org/abs/2506.02208", Config
    needs = Needs(teacher="signal", exact=True, rewards=True, step_features=True)
    variants = {"wrong": {"taught": "wrong"}, "k3": {"estimator": "k3"}}

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.STUDENT,) * self.config.group

    def weight_of_teacher(self, step: Step) -> float:
        """beta at a step."""
        c, done = self.config, step.index / max(step.total - 1, 1)
        return c.beta + (c.beta_end - c.beta) * done

    def step_features(self, values, whole: WholeStep):
        """[M, 2] the advantage of each token's text, and whether the teacher corrects it."""
        features = credit(whole, scale=self.config.scale, mean="token")
        right = (whole.reward >= 1).double()[whole.sequence]
        features[:, 1] = 1 - right if self.config.taught == "wrong" else torch.ones_like(right)
        return features

    def objective(self, tokens: Tokens):
        c, (log_q, old) = self.config, log_prob(tokens)
        advantage, taught = tokens.step_features.to(log_q.dtype).unbind(1)
        gap = -cross_entropy(tokens.teacher, tokens.labels) - log_q
        distance = gap.square() / 2 if c.estimator == "k2" else gap.exp() - gap - 1
        beta = self.weight_of_teacher(tokens.step)
        tokens.metrics.update(distance=distance.detach(), beta=torch.full_like(log_q, beta))
        return surrogate(log_q, old, advantage, c.clip, c.clip, tokens.metrics) + beta * taught * distance

    def card(self):
        c = self.config
        return {
            "divergence": f"reverse KL, {c.estimator} of one sample, x {c.beta:g} to {c.beta_end:g}, {c.taught} texts",
            "advantage": f"{c.group} texts a prompt, deviation: {c.scale}, mean: token, clip {c.clip:g}",
        }
