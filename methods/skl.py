"""Skew-KL distillation on fixed text (DistiLLM, Ko et al. 2024, https://arxiv.org/abs/2402.03898).

    L = (1/N) sum_t KL(p_t || alpha p_t + (1 - alpha) q_t)

p teacher, q student; alpha is the weight of the teacher, the first argument of the KL: alpha = 0 is the forward KL, and
alpha = 1 gives 0 for any student. The skew bounds the gradient where the student gives a token no mass. The released
code logs the value without the teacher's entropy; this is the full KL. The method distillm adds the paper's adaptive
threshold and replay buffer.
"""

from dataclasses import dataclass

from harness.losses import skew_kl
from harness.method import Method, Needs, Step, Tokens
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    alpha: float = option(0.1, "teacher's weight in the mixture", low=0, high=1, source="distillm: lam 0.1")
    text: str = option(
        "teacher", "fixed text to distil on", choices=("teacher", "data"), source="as kd, for comparison"
    )
    temperature: float = option(1.0, "tau, of both distributions", low=0.05, high=100, source="distillm, TAID: 1")


class SKL(Method):
    """Skew KL: forward KL to a mixture of teacher and student."""

    name, paper, Config = "skl", "https://arxiv.org/abs/2402.03898", Config
    needs = Needs(teacher="signal")

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source(self.config.text),)

    def objective(self, tokens: Tokens):
        c = self.config
        return skew_kl(tokens.student, tokens.teacher, alpha=c.alpha, temperature=c.temperature)

    def card(self):
        c = self.config
        return {"divergence": "skew KL", "mixture_weight_of_teacher": c.alpha, "loss_temperature": c.temperature}
