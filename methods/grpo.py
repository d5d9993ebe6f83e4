"""Group relative policy optimisation (GRPO, Shao et al. 2024, DeepSeekMath, https://arxiv.org/abs/2402.03300).

    L = mean over texts of (1/|y|) sum_t -min(r_t A, clip(r_t, 1 - e, 1 + e) A) + beta (u_t - log u_t - 1)
    A = (R - mean of the group) / its standard deviation,   r_t = q(y_t) / q_old(y_t),   u_t = q_ref(y_t) / q(y_t)

q student, q_old the student that sampled y, q_ref the student before training; R the grader's score of y, the group the
``group`` texts that answer one prompt. There is no teacher: it is the reinforcement learning that distillation is
compared with, and what a second stage after distillation does. Where all texts of a group are right, or all wrong,
A = 0. With texts sampled for every step r_t is 1 up to rounding; ``redraw = epoch`` samples those of an epoch at its
beginning, and the clip has work to do. DeepSeekMath names e without a value: 0.2 is PPO's and TRL's.

grpo@dr_grpo   Liu et al. 2025, https://arxiv.org/abs/2503.20783: no deviation, sums over the longest response, no KL
grpo@dapo      Yu et al. 2025, https://arxiv.org/abs/2503.14476: token mean, upper clip 0.28, no KL; its sampling until
               a group disagrees and its penalty on length are left out
"""

from dataclasses import dataclass

from harness.methods._rewards import credit, log_prob, surrogate

from harness.method import Method, Needs, Step, Tokens, WholeStep
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    group: int = option(8, "texts per prompt, compared with each other", low=2, source="TRL: 8; DeepSeekMath: 64")
    scale: str = option("group", "deviation that divides A", choices=("group", "step", "none"), source="DeepSeekMath")
    mean: str = option(
        "text",
        "of the terms over texts, over tokens, or their sum over a constant",
        choices=("text", "token", "constant"),
        source="DeepSeekMath",
    )
    clip: float = option(0.2, "e, below 1", low=0, high=1, source="TRL: 0.2")
    clip_high: float = option(0.2, "e, above 1", low=0, high=1e6, source="TRL: as below")
    beta: float = option(0.04, "weight of the KL to the student before training", low=0, source="DeepSeekMath: 0.04")
    redraw: str = option("step", "texts are sampled per step, or for a whole epoch", choices=("step", "epoch"))


class GRPO(Method):
    """Rewards from the data's grader, compared among the texts of one prompt."""

    name, paper, Config = "grpo", "https://arxiv.org/abs/2402.03300", Config
    variants = {
        "dr_grpo": {"scale": "none", "mean": "constant", "beta": 0.0},
        "dapo": {"mean": "token", "clip_high": 0.28, "beta": 0.0},
    }

    @property
    def needs(self) -> Needs:
        c = self.config
        return Needs(rewards=True, step_features=True, reference=c.beta > 0, redraw=c.redraw)

    @property
    def reduction(self) -> str:
        return "sequence" if self.config.mean == "text" else "token"

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.STUDENT,) * self.config.group

    def step_features(self, values, whole: WholeStep):
        return credit(whole, scale=self.config.scale, mean=self.config.mean)

    def objective(self, tokens: Tokens):
        c, (log_q, old) = self.config, log_prob(tokens)
        advantage, factor = tokens.step_features.to(log_q.dtype).unbind(1)
        value = surrogate(log_q, old, advantage, c.clip, c.clip_high, tokens.metrics)
        if c.beta:
            gap = tokens.reference_log_prob - log_q
            kl = gap.exp() - gap - 1
            tokens.metrics["kl"] = kl.detach()
            value = value + c.beta * kl
        return factor * value

    def card(self):
        c = self.config
        return {
            "divergence": "none: reward" + (f", {c.beta:g} x KL to the initial student" if c.beta else ""),
            "advantage": f"{c.group} texts a prompt, deviation: {c.scale}, mean: {c.mean}, "
            f"clip {c.clip:g}/{c.clip_high:g}",
        }
