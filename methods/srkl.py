"""Skew-reverse-KL distillation on fixed text (DistiLLM, Ko et al. 2024, https://arxiv.org/abs/2402.03898).

    L = (1/N) sum_t KL(q_t || (1 - alpha) p_t + alpha q_t)

p teacher, q student; alpha is the weight of the student, the first argument of the KL: alpha = 0 is the reverse KL, and
alpha = 1 gives 0 for any student. The gradient flows through both occurrences of q.

srkl@detached   no gradient through the mixture: the same value with another gradient, as in distillm-2's released code
"""

from dataclasses import dataclass

from harness.losses import skew_reverse_kl
from harness.method import Method, Needs, Step, Tokens
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    alpha: float = option(0.1, "student's weight in the mixture", low=0, high=1, source="distillm: lam 0.1")
    detach_mixture: bool = option(False, "no gradient through the mixture", source="distillm; True in distillm-2")
    text: str = option(
        "teacher", "fixed text to distil on", choices=("teacher", "data"), source="as kd, for comparison"
    )
    temperature: float = option(1.0, "tau, of both distributions", low=0.05, high=100, source="distillm, TAID: 1")


class SRKL(Method):
    """Skew reverse KL: reverse KL to a mixture of teacher and student."""

    name, paper, Config = "srkl", "https://arxiv.org/abs/2402.03898", Config
    needs = Needs(teacher="signal")
    variants = {"detached": {"detach_mixture": True}}

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source(self.config.text),)

    def objective(self, tokens: Tokens):
        c = self.config
        return skew_reverse_kl(
            tokens.student,
            tokens.teacher,
            alpha=c.alpha,
            detach_mixture=c.detach_mixture,
            temperature=c.temperature,
        )

    def card(self):
        c = self.config
        return {
            "divergence": "skew reverse KL" + (", mixture detached" if c.detach_mixture else ""),
            "mixture_weight_of_teacher": 1 - c.alpha,
            "loss_temperature": c.temperature,
        }
