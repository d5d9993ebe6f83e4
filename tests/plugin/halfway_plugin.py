"""A third party's method: forward KL on the way to reverse KL.

L = (1/N) sum_t (1 - s) KL(p_t || q_t) + s KL(q_t || p_t),  s = share of the training that has passed
"""

from dataclasses import dataclass

from harness.losses import forward_kl, reverse_kl
from harness.method import Method, Needs, Step, Tokens
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    end: float = option(1.0, "s at the last step", low=0, high=1)


class Halfway(Method):
    """Forward KL that turns into reverse KL."""

    name, Config = "halfway", Config
    needs = Needs(teacher="signal")

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.TEACHER,)

    def objective(self, tokens: Tokens):
        s = self.config.end * tokens.step.index / tokens.step.total
        p, q = tokens.teacher, tokens.student
        return (1 - s) * forward_kl(q, p) + s * reverse_kl(q, p)
