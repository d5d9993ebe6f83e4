"""Reverse-KL distillation (the single-step term of MiniLLM, https://arxiv.org/abs/2306.08543, equation 4).

    L = (1/N) sum_t KL(q_t || p_t),      KL(q || p) = sum_v q(v) log(q(v) / p(v))

p teacher and q student, both at temperature tau. Mode seeking: the student is penalised for mass where the teacher has
none. The text is fixed; on the student's own text this is gkd with beta = 1, on_policy = 1.
"""

from dataclasses import dataclass

from harness.losses import reverse_kl
from harness.method import Method, Needs, Step, Tokens
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    text: str = option(
        "teacher", "fixed text to distil on", choices=("teacher", "data"), source="as kd, for comparison"
    )
    temperature: float = option(1.0, "tau, of both distributions", low=0.05, high=100, source="distillm, TAID, TRL: 1")


class RKL(Method):
    """Reverse KL from student to teacher on fixed text."""

    name, paper, Config = "rkl", "https://arxiv.org/abs/2306.08543", Config
    needs = Needs(teacher="signal")

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source(self.config.text),)

    def objective(self, tokens: Tokens):
        return reverse_kl(tokens.student, tokens.teacher, temperature=self.config.temperature)

    def card(self):
        return {"divergence": "reverse KL", "loss_temperature": self.config.temperature}
