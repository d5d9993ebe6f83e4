"""A method of your own: the weight moves from forward to reverse KL during training.

    L = (1/N) sum_t (1 - s) KL(p_t || q_t) + s KL(q_t || p_t),      s = start + (end - start) * step / steps

p teacher, q student. Check it and run it against a baseline:

    harness check --method docs/examples/own_method.py
    harness run --method docs/examples/own_method.py --method gkd --task amc23 --seed 0 1 2
"""

from dataclasses import dataclass

from harness import Method, Needs
from harness.losses import forward_kl, reverse_kl
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    start: float = option(0.0, "share of the reverse KL at the first step", low=0, high=1)
    end: float = option(1.0, "share of the reverse KL after the last step", low=0, high=1)


class Moving(Method):
    """From forward to reverse KL."""

    name, Config = "moving", Config
    needs = Needs(teacher="signal")

    def sources(self, step):
        return (Source.STUDENT if step.draw < 0.5 else Source.TEACHER,)

    def objective(self, tokens):
        share = self.config.start + (self.config.end - self.config.start) * tokens.step.index / tokens.step.total
        forward = forward_kl(tokens.student, tokens.teacher)
        reverse = reverse_kl(tokens.student, tokens.teacher)
        return (1 - share) * forward + share * reverse
