"""Selective token-weighted distillation (SelecTKD, Huang et al. 2025, https://arxiv.org/abs/2510.24021).

    L = (1/N) sum_t w_t D(p_t, q_t),    w_t = 1 if argmax q_t is among the k likeliest tokens of p_t, else ``rejected``

p teacher, q student. The student proposes its likeliest token and the teacher verifies it: the greedy "Top-k" of the
paper. (Its "Spec-k" accepts at random and is not offered.) The mean is over all tokens, so that rejected ones make the
step smaller; ``normaliser`` = weights divides by the sum of the weights instead. Which of the two the paper uses, its
text and its base divergence are our reading: the paper adds its weights to several methods. ``rejected`` = 1 is the
base method.

selectkd@masked    rejected tokens are left out altogether
selectkd@weights   divided by the sum of the weights
"""

from dataclasses import dataclass

from harness import losses
from harness.method import Method, Needs, Step, Tokens
from harness.options import option
from harness.types import Source

PAPER = "SelecTKD"
BASES = {
    "forward_kl": lambda s, t, c: losses.forward_kl(s, t, temperature=c.temperature),
    "reverse_kl": lambda s, t, c: losses.reverse_kl(s, t, temperature=c.temperature),
    "jsd": lambda s, t, c: losses.jsd(s, t, beta=0.5, temperature=c.temperature),
    "skew_kl": lambda s, t, c: losses.skew_kl(s, t, alpha=0.1, temperature=c.temperature),
    "skew_reverse_kl": lambda s, t, c: losses.skew_reverse_kl(s, t, alpha=0.1, temperature=c.temperature),
}


@dataclass(frozen=True)
class Config:
    k: int = option(5, "teacher's likeliest tokens, which are accepted", low=1, source=f"{PAPER}: 5")
    rejected: float = option(0.01, "weight of a rejected token", low=0, high=1, source=f"{PAPER}: 0.01")
    divergence: str = option("forward_kl", "D", choices=tuple(BASES))
    normaliser: str = option("tokens", "what the sum is divided by", choices=("tokens", "weights"))
    on_policy: float = option(0.0, "share of steps on student text", low=0, high=1)
    text: str = option("teacher", "text of the other steps", choices=("teacher", "data"))
    temperature: float = option(1.0, "of both distributions in D", low=0.05, high=100)
    shuffle: bool = option(False, "control: the same weights on shuffled tokens of the optimizer step")


class SelecTKD(Method):
    """A divergence with full weight where the teacher accepts the student's likeliest token."""

    name, paper, Config = "selectkd", "https://arxiv.org/abs/2510.24021", Config
    variants = {"masked": {"rejected": 0.0}, "weights": {"normaliser": "weights"}}

    @property
    def needs(self) -> Needs:
        return Needs(teacher="signal", exact=True, gate=self.config.normaliser == "tokens", ranks=self.config.k)

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.STUDENT if step.draw < self.config.on_policy else Source(self.config.text),)

    def objective(self, tokens: Tokens):
        value = BASES[self.config.divergence](tokens.student, tokens.teacher, self.config)
        if tokens.gate is None:
            return value
        tokens.metrics["weight"] = tokens.gate
        return tokens.gate * value

    def weight(self, tokens: Tokens):
        p = tokens.teacher
        proposed = p.gather(-1, tokens.student.argmax(-1, keepdim=True))[:, 0]
        # Among the k likeliest: fewer than k are likelier. So the order of equally likely tokens does not matter.
        accepted = (p > proposed[:, None]).sum(-1) < self.config.k
        return accepted.float().clamp_min(self.config.rejected)

    def card(self):
        c = self.config
        return {
            "divergence": c.divergence,
            "mixture_weight_of_teacher": {"jsd": 0.5, "skew_kl": 0.1, "skew_reverse_kl": 0.9}.get(c.divergence),
            "loss_temperature": c.temperature,
            "token_weights": f"top-{c.k} accepted, else {c.rejected:g}, over {c.normaliser}"
            + ("/shuffled" if c.shuffle else ""),
        }
