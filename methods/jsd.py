"""Jensen-Shannon distillation on fixed text (the divergence of GKD, https://arxiv.org/abs/2306.13649).

    L = (1/N) sum_t beta KL(p_t || m_t) + (1 - beta) KL(q_t || m_t),      m = beta p + (1 - beta) q

p teacher, q student; beta is the teacher's weight in m (TRL's convention; harness.losses.jsd gives the others).
beta = 0 is the full forward and beta = 1 the full reverse KL, although the divergence tends to 0 near both ends. On the
student's own text this is gkd.

jsd@distillm   teacher weight 0.1: `js_distance` of distillm with lam = 0.9; TAID's js_beta is also 0.1
"""

from dataclasses import dataclass

from harness.losses import jsd
from harness.method import Method, Needs, Step, Tokens
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    beta: float = option(0.5, "teacher's weight in the mixture", low=0, high=1, source="TRL GKDConfig (beta 0.5)")
    text: str = option(
        "teacher", "fixed text to distil on", choices=("teacher", "data"), source="as kd, for comparison"
    )
    temperature: float = option(1.0, "tau, of both distributions", low=0.05, high=100, source="distillm, TAID, TRL: 1")


class JSD(Method):
    """Generalised Jensen-Shannon divergence on fixed text."""

    name, paper, Config = "jsd", "https://arxiv.org/abs/2306.13649", Config
    needs = Needs(teacher="signal")
    variants = {"distillm": {"beta": 0.1}}

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source(self.config.text),)

    def objective(self, tokens: Tokens):
        c = self.config
        return jsd(tokens.student, tokens.teacher, beta=c.beta, temperature=c.temperature)

    def card(self):
        c = self.config
        return {"divergence": "JSD", "mixture_weight_of_teacher": c.beta, "loss_temperature": c.temperature}
