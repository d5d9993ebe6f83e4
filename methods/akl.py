"""Adaptive KL on fixed text (Wu et al. 2024, https://arxiv.org/abs/2404.02657).

    L = (1/N) sum_t w_t KL(p_t || q_t) + (1 - w_t) KL(q_t || p_t),      w = g_head / (g_head + g_tail)

p teacher, q student. The head is the smallest set of the teacher's likeliest tokens with mass mu; g is the sum of
|p - q| over head or tail; no gradient flows into w. The weight needs the teacher's whole distribution, so a top-k
signal is refused.

akl@release   the authors' code: the token at which the cumulative mass exceeds mu is left out of the head unless it
              is the likeliest. TAID's copy applies a mask of sorted tokens to unsorted gaps, which is another
              objective; it is not offered.
"""

from dataclasses import dataclass

from harness.losses import adaptive_kl
from harness.method import Method, Needs, Step, Tokens
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    mu: float = option(0.5, "teacher's mass in the head", low=0, high=1, source="LLM_KD_AKL: mu 0.5")
    crossing: bool = option(True, "the token that passes mu is in the head", source="paper; False in the authors' code")
    text: str = option(
        "teacher", "fixed text to distil on", choices=("teacher", "data"), source="as kd, for comparison"
    )
    temperature: float = option(1.0, "tau, of both distributions", low=0.05, high=100, source="distillm, TAID: 1")


class AKL(Method):
    """Forward and reverse KL, weighted per token by the gaps in the head and in the tail."""

    name, paper, Config = "akl", "https://arxiv.org/abs/2404.02657", Config
    needs = Needs(teacher="signal", exact=True)
    variants = {"release": {"crossing": False}}

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source(self.config.text),)

    def objective(self, tokens: Tokens):
        c = self.config
        return adaptive_kl(tokens.student, tokens.teacher, mu=c.mu, crossing=c.crossing, temperature=c.temperature)

    def card(self):
        c = self.config
        return {"divergence": f"adaptive KL, mu {c.mu:g}", "loss_temperature": c.temperature}
