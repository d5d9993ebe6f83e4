"""Entropy-aware on-policy distillation, after EOPD (2026, https://arxiv.org/abs/2603.07079).

    L = (1/N) sum_t KL(q_t || p_t) + lambda 1[H(p_t) > tau] KL(p_t || q_t)

p teacher, q student on the student's own text, H the entropy in nats. Where the teacher is sure the student seeks its
mode; where it is not, the forward KL keeps the student from dropping the alternatives. What is public is "reverse KL,
plus forward KL where the teacher's entropy is high"; that both are over the whole vocabulary, and tau and lambda, are
our reading. The gate adds a second divergence and spreads nothing, so there is no shuffled-weight control.
"""

from dataclasses import dataclass

from harness.losses import cross_entropy, forward_kl, reverse_kl
from harness.method import Method, Needs, Step, Tokens
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    tau: float = option(1.0, "entropy of the teacher above which the forward KL joins, nats", low=0, high=100)
    forward: float = option(1.0, "lambda, weight of the forward KL", low=0, high=1000)


class EOPD(Method):
    """Reverse KL on own samples, with forward KL where the teacher is unsure."""

    name, paper, Config = "eopd", "https://arxiv.org/abs/2603.07079", Config
    needs = Needs(teacher="signal", exact=True)
    note = "reconstruction: threshold and weight of the forward KL are assumed"

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.STUDENT,)

    def objective(self, tokens: Tokens):
        c, (q, p) = self.config, (tokens.student, tokens.teacher)
        unsure = (cross_entropy(p, p) > c.tau).float()  # the cross-entropy of p with itself is its entropy
        tokens.metrics["unsure"] = unsure
        return reverse_kl(q, p) + c.forward * unsure * forward_kl(q, p)

    def card(self):
        c = self.config
        return {"divergence": f"reverse KL + {c.forward:g} forward KL where H(p) > {c.tau:g}"}
