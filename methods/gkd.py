"""Generalised knowledge distillation (Agarwal et al. 2024, https://arxiv.org/abs/2306.13649, algorithm 1).

    L = (1/N) sum_t JSD_beta(p_t || q_t)
    JSD_beta = beta KL(p || m) + (1 - beta) KL(q || m),      m = beta p + (1 - beta) q

p teacher, q student; beta is the teacher's weight in m, beta = 0 is forward and beta = 1 reverse KL. With
probability lambda (``on_policy``) a step trains on the student's own samples, else on fixed text; no gradient
flows through the sampling. As beta -> 0 the gradient tends to beta times that of the forward KL, while beta = 0
gives the full gradient: a sweep over beta also changes the step size.

gkd@trl        TRL's GKDConfig: teacher weight 0.5, lambda 0.5, the other steps on the data's responses. Its sampling
               temperature of 0.9 is the recipe's [rollout]; the loss has temperature 1.
gkd@distillm   teacher weight 0.1 (its lam is 0.9), half of the steps on student text, the others on data
gkd@distillm2  teacher weight 0.9 (its alpha), every step on the teacher's and on the student's text, weight 1 each:
               the sum over both texts of the mean over sequences of the mean over tokens
"""

from dataclasses import dataclass

from harness.losses import jsd
from harness.method import Method, Needs, Step, Tokens
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    beta: float = option(0.5, "teacher's weight in the mixture", low=0, high=1, source="TRL GKDConfig (beta 0.5)")
    on_policy: float = option(
        0.5, "lambda, share of steps on student text", low=0, high=1, source="TRL GKDConfig (lmbda 0.5)"
    )
    text: str = option(
        "teacher", "text of the other steps", choices=("teacher", "data", "both"), source="paper, section 3.1"
    )  # both: every prompt twice, with the teacher's response and with the student's
    temperature: float = option(1.0, "of both distributions in the loss", low=0.05, high=100, source="paper")


class GKD(Method):
    """Generalised JSD on a mixture of fixed and student-sampled text."""

    name, paper, Config = "gkd", "https://arxiv.org/abs/2306.13649", Config
    needs = Needs(teacher="signal")
    variants = {
        "trl": {"beta": 0.5, "on_policy": 0.5, "text": "data"},
        "distillm": {"beta": 0.1, "on_policy": 0.5, "text": "data"},
        "distillm2": {"beta": 0.9, "on_policy": 0.0, "text": "both"},
    }

    @property
    def reduction(self) -> str:
        return "sequence" if self.config.text == "both" else "token"

    def sources(self, step: Step) -> tuple[Source, ...]:
        if step.draw < self.config.on_policy:
            return (Source.STUDENT,)
        return (Source.TEACHER, Source.STUDENT) if self.config.text == "both" else (Source(self.config.text),)

    def objective(self, tokens: Tokens):
        c = self.config
        value = jsd(tokens.student, tokens.teacher, beta=c.beta, temperature=c.temperature)
        # The loop takes the mean over both texts; the objective is their sum.
        return len(self.sources(tokens.step)) * value

    def card(self):
        c = self.config
        return {"divergence": "JSD", "mixture_weight_of_teacher": c.beta, "loss_temperature": c.temperature}
