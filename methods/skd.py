"""Speculative knowledge distillation (SKD, Xu et al. 2024, https://arxiv.org/abs/2410.11325, algorithm 1).

    L = mean over sequences of mean_t D(p_t, q_t)      on text that both models write together:
    y_t ~ q, and where y_t is not among the top_k likeliest tokens of p, y_t ~ p instead

p teacher, q student, D the forward KL. Each model samples with its own temperature and top-p, which do not enter the
loss. The released code lets the student propose five tokens at a time and discards those after a rejected one; sampling
token by token, as here, gives text of the same distribution. All sequences have equal weight, as with the released
batch size of one.

skd@jsd   D is the JSD at 1/2
"""

from dataclasses import dataclass

from harness.losses import forward_kl, jsd
from harness.method import Method, Needs, Speculation, Step, Tokens
from harness.options import option
from harness.types import Decoding, Source

CODE = "speculative_kd, kd_train.yaml"


@dataclass(frozen=True)
class Config:
    top_k: int = option(25, "teacher's likeliest tokens, which are accepted", low=1, source=f"{CODE}: 25")
    student_temperature: float = option(0.5, "of the student's proposals", low=0, high=100, source=f"{CODE}: 0.5")
    student_top_p: float = option(0.5, "nucleus of the student's proposals", low=0.01, high=1, source=f"{CODE}: 0.5")
    teacher_temperature: float = option(0.2, "of the teacher's replacements", low=0, high=100, source=f"{CODE}: 0.2")
    teacher_top_p: float = option(0.5, "nucleus of the teacher's replacements", low=0.01, high=1, source=f"{CODE}: 0.5")
    divergence: str = option("forward_kl", "D", choices=("forward_kl", "jsd"), source="paper, section 4")
    temperature: float = option(1.0, "tau, of both distributions in D", low=0.05, high=100, source="paper")


class SKD(Method):
    """KL on text whose tokens the student proposes and the teacher accepts or replaces."""

    name, paper, Config = "skd", "https://arxiv.org/abs/2410.11325", Config
    variants = {"jsd": {"divergence": "jsd"}}
    reduction = "sequence"

    @property
    def needs(self) -> Needs:
        c = self.config
        student = Decoding(temperature=c.student_temperature, top_p=c.student_top_p)
        teacher = Decoding(temperature=c.teacher_temperature, top_p=c.teacher_top_p)
        return Needs(teacher="signal", joint=Speculation(c.top_k, student, teacher))

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.MIXED,)

    def objective(self, tokens: Tokens):
        c = self.config
        if c.divergence == "jsd":
            return jsd(tokens.student, tokens.teacher, beta=0.5, temperature=c.temperature)
        return forward_kl(tokens.student, tokens.teacher, temperature=c.temperature)

    def card(self):
        c = self.config
        return {
            "divergence": {"forward_kl": "forward KL", "jsd": "JSD"}[c.divergence],
            "mixture_weight_of_teacher": 0.5 if c.divergence == "jsd" else None,
            "loss_temperature": c.temperature,
            "sampling_temperature": f"student {c.student_temperature:g}, teacher {c.teacher_temperature:g}",
            "joint_text": f"speculative, teacher's top {c.top_k}",
        }
