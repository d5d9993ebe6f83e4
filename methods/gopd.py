"""Generalised on-policy distillation, ExOPD (G-OPD 2026, https://arxiv.org/abs/2602.12125, code RUCBM/G-OPD).

    L = (1/N) sum_t l_t,      l_t = -r_t sg(A_t),      r_t = q(y_t) / q_old(y_t)
    A_t = (log p(y_t) - log q_old(y_t)) + (lambda - 1) (log p(y_t) - log p_ref(y_t))

p teacher, q student, q_old the student that sampled y, p_ref the student before training. lambda = 1 is plain on-policy
distillation on the sampled token (opd with discount 0), lambda > 1 goes beyond the teacher along the way from the
reference to it, lambda < 1 stays short of it.

In the released code ``ref_log_prob`` is the teacher and ``base_log_prob`` the reference. The paper's objective is the
code's, but the A_t that it prints for the gradient has the opposite sign; the code is followed, whose gradient raises
the teacher's tokens.

gopd@printed    the printed sign read literally: what the code maximises is minimised. It shows what a slip costs
"""

from dataclasses import dataclass

from harness.losses import cross_entropy
from harness.method import Method, Needs, Step, Tokens, recorded_or
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    scale: float = option(1.25, "lambda: 1 is the teacher, more goes beyond it", low=0, high=100, source="G-OPD: 1.25")
    sign: str = option(
        "code", "of the advantage: the code's, or as printed", choices=("code", "printed"), source="code"
    )


class GOPD(Method):
    """On-policy distillation that extrapolates beyond the teacher, away from the student before training."""

    name, paper, Config = "gopd", "https://arxiv.org/abs/2602.12125", Config
    needs = Needs(teacher="signal", exact=True, reference=True)
    variants = {"printed": {"sign": "printed"}}

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.STUDENT,)

    def objective(self, tokens: Tokens):
        log_q = -cross_entropy(tokens.student, tokens.labels)
        log_p = -cross_entropy(tokens.teacher, tokens.labels)
        old = recorded_or(tokens.sampler_log_prob, log_q)
        beyond = log_p - tokens.reference_log_prob
        advantage = (log_p - old) + (self.config.scale - 1) * beyond
        tokens.metrics["beyond"] = beyond
        if self.config.sign == "printed":
            advantage = -advantage
        return -(log_q - old).exp() * advantage.detach()

    def card(self):
        turned = ", sign turned" if self.config.sign == "printed" else ""
        return {"divergence": f"reverse KL, one sample, discount 0, reward scale {self.config.scale:g}{turned}"}
