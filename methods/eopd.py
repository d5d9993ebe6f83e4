"""Entropy-aware on-policy distillation, after EOPD (2026, https://arxiv.org/abs/2603.07079).

    L = (1/N) sum_t KL(q_t || p_t) + lambda 1[H(p_t) > tau] KL(p_t || q_t)

p teacher, q student on the student's own text, H the entropy in nats. Where the teacher is certain, the reverse KL
makes the student seek its mode; where it is not, the forward KL keeps the student from dropping alternatives. Public is
"reverse KL, plus forward KL where the teacher's entropy is high"; that both are over the whole vocabulary, and the
values of tau and lambda, are assumed. The control applies the same number of forward KLs at other tokens.
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
    shuffle: bool = option(False, "control: the forward KL joins at shuffled tokens of the optimizer step")


class EOPD(Method):
    """Reverse KL on the student's samples, plus forward KL where the teacher's entropy is high."""

    name, paper, Config = "eopd", "https://arxiv.org/abs/2603.07079", Config
    needs = Needs(teacher="signal", exact=True, gate=True)
    reconstruction = True
    note = "reconstruction: threshold and weight of the forward KL are assumed"

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.STUDENT,)

    def objective(self, tokens: Tokens):
        q, p = tokens.student, tokens.teacher
        tokens.metrics["unsure"] = tokens.gate
        return reverse_kl(q, p) + self.config.forward * tokens.gate * forward_kl(q, p)

    def weight(self, tokens: Tokens):
        entropy = cross_entropy(tokens.teacher, tokens.teacher)  # H(p), [N]
        return (entropy > self.config.tau).float()

    def card(self):
        c = self.config
        return {
            "divergence": f"reverse KL + {c.forward:g} forward KL where H(p) > {c.tau:g}",
            "token_weights": "entropy gate" + ("/shuffled" if c.shuffle else ""),
        }
