"""Total-variation distillation on fixed text (f-distill, Wen et al. 2023, https://arxiv.org/abs/2307.15190).

    L = (1/N) sum_t TV(p_t, q_t),      TV(p, q) = 1/2 sum_v |p(v) - q(v)|

p teacher, q student. Symmetric and bounded: the value of a token is at most 1. Where p(v) = q(v) the subgradient is 0.
The paper distils on text of both models; here the text is a setting.
"""

from dataclasses import dataclass

from harness.losses import total_variation
from harness.method import Method, Needs, Step, Tokens
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    text: str = option(
        "teacher", "fixed text to distil on", choices=("teacher", "data"), source="as kd, for comparison"
    )
    temperature: float = option(1.0, "tau, of both distributions", low=0.05, high=100, source="distillm, TAID: 1")


class TVD(Method):
    """Total variation distance on fixed text."""

    name, paper, Config = "tvd", "https://arxiv.org/abs/2307.15190", Config
    needs = Needs(teacher="signal")

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source(self.config.text),)

    def objective(self, tokens: Tokens):
        c = self.config
        return total_variation(tokens.student, tokens.teacher, temperature=c.temperature)

    def card(self):
        c = self.config
        return {"divergence": "total variation", "loss_temperature": c.temperature}
