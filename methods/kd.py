"""Knowledge distillation by forward KL (Hinton et al. 2015, https://arxiv.org/abs/1503.02531).

    L = (1/N) sum_t KL(p_t || q_t),      KL(p || q) = sum_v p(v) log(p(v) / q(v))

p teacher and q student, both at temperature tau, on fixed text. The value is the full KL, including the teacher's
entropy. As in current language-model code, Hinton's factor tau^2 is not applied, so the temperature scales the
gradient by about 1/tau^2.
"""

from dataclasses import dataclass

from harness.losses import forward_kl
from harness.method import Method, Needs, Step, Tokens
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    text: str = option(
        "teacher", "fixed text to distil on", choices=("teacher", "data"), source="DistiLLM-2's kd baseline"
    )
    temperature: float = option(1.0, "tau, of both distributions", low=0.05, high=100, source="distillm, TAID, TRL: 1")


class KD(Method):
    """Forward KL from teacher to student on fixed text."""

    name, paper, Config = "kd", "https://arxiv.org/abs/1503.02531", Config
    needs = Needs(teacher="signal")

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source(self.config.text),)

    def objective(self, tokens: Tokens):
        return forward_kl(tokens.student, tokens.teacher, temperature=self.config.temperature)

    def card(self):
        return {"divergence": "forward KL", "loss_temperature": self.config.temperature}
