"""Alpha-beta divergence on fixed text (ABKD, Wang et al. 2025, https://arxiv.org/abs/2505.04560).

    L = (1/N) sum_t D(p_t, q_t)
    D = -1/(alpha beta) sum_v [p^alpha q^beta - alpha/(alpha+beta) p^(alpha+beta) - beta/(alpha+beta) q^(alpha+beta)]

p teacher, q student. Where alpha, beta or their sum is 0, D is the limit: (1, 0) is the forward and (0, 1) the reverse
KL. A top-k signal gives a lower bound only for alpha + beta = 1, so it is refused for other values.

abkd@openllama   the exponents of the paper's OpenLLaMA runs
abkd@release     the values hard-coded in the loop of the released GPT-2 script: (0, 1), the reverse KL
"""

from dataclasses import dataclass

from harness.losses import alpha_beta
from harness.method import Method, Needs, Step, Tokens
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    alpha: float = option(0.2, "teacher's exponent", low=-10, high=10, source="ABKD, GPT-2: 0.2")
    beta: float = option(0.7, "student's exponent", low=-10, high=10, source="ABKD, GPT-2: 0.7")
    text: str = option(
        "teacher", "fixed text to distil on", choices=("teacher", "data"), source="as kd, for comparison"
    )
    temperature: float = option(1.0, "tau, of both distributions", low=0.05, high=100, source="distillm, TAID: 1")


class ABKD(Method):
    """Alpha-beta divergence, which includes forward and reverse KL."""

    name, paper, Config = "abkd", "https://arxiv.org/abs/2505.04560", Config
    variants = {"openllama": {"alpha": 0.1, "beta": 0.8}, "release": {"alpha": 0.0, "beta": 1.0}}

    @property
    def needs(self) -> Needs:
        return Needs(teacher="signal", exact=abs(self.config.alpha + self.config.beta - 1) > 1e-9)

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source(self.config.text),)

    def objective(self, tokens: Tokens):
        c = self.config
        return alpha_beta(tokens.student, tokens.teacher, alpha=c.alpha, beta=c.beta, temperature=c.temperature)

    def card(self):
        c = self.config
        return {"divergence": f"alpha-beta ({c.alpha:g}, {c.beta:g})", "loss_temperature": c.temperature}
