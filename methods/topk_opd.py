"""On-policy distillation on the top k tokens (Revisiting OPD 2026, https://arxiv.org/abs/2603.25562).

    L = sum_t m_t D_t / sum_t m_t,      D_t = KL(q_K || p_K) on the student's own text

p teacher, q student; K are the ``k`` likeliest tokens of the teacher, or of the student; m_t = 0 where the text's token
is a special one of the tokenizer (end of text, chat marks), on which two chat templates disagree, else 1. The paper's
rollouts have a nucleus of 0.9, which is the recipe's [rollout]. With k = the vocabulary, D is the reverse KL.

renormalised   q_K and p_K are divided by their mass in K: nothing is said of how much that is, and on the student's
               support a token that the student has dropped gets no gradient
bucket         all other tokens are one event more, which keeps D a lower bound of the reverse KL

topk_opd@student    the student's support; the paper's main form takes the teacher's
topk_opd@bucket     the rest of the mass in a bucket
topk_opd@unmasked   special tokens train like all others

Masking the positions of special tokens is our reading of the paper's "special-token masking".
"""

from dataclasses import dataclass

import torch

from harness.losses import kl_of, log_probs, with_rest
from harness.method import Method, Needs, Step, Tokens
from harness.options import option
from harness.types import Source

PAPER = "Revisiting OPD"


@dataclass(frozen=True)
class Config:
    k: int = option(16, "tokens that are compared; the vocabulary has at least as many", low=1, source=f"{PAPER}: 16")
    support: str = option("teacher", "whose likeliest tokens", choices=("teacher", "student"), source=PAPER)
    rest: str = option(
        "renormalised", "what becomes of the other tokens' mass", choices=("renormalised", "bucket"), source=PAPER
    )
    special: str = option("masked", "special tokens of the text", choices=("masked", "trained"), source=PAPER)
    temperature: float = option(1.0, "of both distributions in the loss", low=0.05, high=100)
    shuffle: bool = option(False, "control: the mask falls on shuffled tokens of the optimizer step")


class TopKOPD(Method):
    """Reverse KL on own samples over the likeliest tokens of the teacher, special tokens masked."""

    name, paper, Config = "topk_opd", "https://arxiv.org/abs/2603.25562", Config
    variants = {"student": {"support": "student"}, "bucket": {"rest": "bucket"}, "unmasked": {"special": "trained"}}

    @property
    def needs(self) -> Needs:
        return Needs(teacher="signal", exact=True, ranks=self.config.k)

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.STUDENT,)

    def objective(self, tokens: Tokens):
        c = self.config
        log_q, log_p = log_probs(tokens.student, tokens.teacher, temperature=c.temperature)
        k = min(c.k, log_p.shape[-1])
        ids = (log_p if c.support == "teacher" else log_q.detach()).topk(k, -1).indices
        log_q, log_p = log_q.gather(-1, ids), log_p.gather(-1, ids)
        if c.rest == "renormalised":
            return kl_of(log_q.log_softmax(-1), log_p.log_softmax(-1))
        return kl_of(with_rest(log_q), with_rest(log_p)) if k < tokens.teacher.shape[-1] else kl_of(log_q, log_p)

    def weight(self, tokens: Tokens):
        if self.config.special == "trained" or tokens.special is None:
            return torch.ones_like(tokens.position, dtype=torch.float32)
        return (~tokens.special).float()

    def card(self):
        c = self.config
        return {
            "divergence": f"reverse KL on the {c.support}'s top {c.k}, rest {c.rest}",
            "loss_temperature": c.temperature,
            "token_weights": f"special tokens {c.special}" + ("/shuffled" if c.shuffle else ""),
        }
