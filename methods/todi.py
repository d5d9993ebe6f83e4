"""Token-wise divergence control (ToDi, Jung et al. 2025, https://arxiv.org/abs/2505.16297).

    L = (1/N) sum_t sum_v a_v p_v log(p_v / q_v) + (1 - a_v) q_v log(q_v / p_v)
    a_v = sg sigmoid(beta log(p_v / q_v))

p teacher, q student, v over the vocabulary, sg stop-gradient. Where the student gives a word too little the forward KL
of that entry pulls, where too much the reverse KL. beta = 0 is the mean of both KLs; as beta grows each entry has one
of the two. The value is never less than the mean of both KLs.
"""

from dataclasses import dataclass

from harness.losses import log_probs
from harness.method import Method, Needs, Step, Tokens
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    beta: float = option(1.0, "sharpness of the mix; 0 is one half", low=0, high=1000, source="ToDi has no factor: 1")
    text: str = option("teacher", "the text", choices=("teacher", "data"))
    temperature: float = option(1.0, "of both distributions", low=0.05, high=100)


class ToDi(Method):
    """Forward or reverse KL for each vocabulary entry, as the student is below or above the teacher."""

    name, paper, Config = "todi", "https://arxiv.org/abs/2505.16297", Config
    needs = Needs(teacher="signal", exact=True)  # a mix per entry is not a lower bound if an entry is a bucket

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source(self.config.text),)

    def objective(self, tokens: Tokens):
        c = self.config
        log_q, log_p = log_probs(tokens.student, tokens.teacher, temperature=c.temperature)
        p, q = log_p.exp(), log_q.exp()
        # A word that both models rule out has a gap of infinity minus infinity, and adds nothing.
        gap = (log_p - log_q).masked_fill((p == 0) & (q == 0), 0)
        mix = (c.beta * gap.detach()).sigmoid()
        forward = (p * gap).masked_fill(p == 0, 0)
        reverse = (q * -gap).masked_fill(q == 0, 0)
        return (mix * forward + (1 - mix) * reverse).sum(-1)

    def card(self):
        c = self.config
        return {
            "divergence": f"forward and reverse KL mixed per entry, sharpness {c.beta:g}",
            "loss_temperature": c.temperature,
        }
