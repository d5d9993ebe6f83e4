"""Entropy-aware on-policy distillation (EOPD, Jin et al. 2026, https://arxiv.org/abs/2603.07079, equations 7 to 10).

    L = (1/N) sum_t max(-r_t A_t, -clip(r_t, 1 - eps, 1 + eps) A_t) + alpha 1[H(p_t) > tau] KL(p~_t || q_t)
    A_t = log p(y_t) - log q_old(y_t),      r_t = q(y_t) / q_old(y_t)

p teacher, q student on its own text, q_old the student that sampled it, H the entropy in nats over the vocabulary. p~
is the teacher on its ``top_k`` likeliest tokens, divided by its mass there; q keeps its probability over the whole
vocabulary, so that KL(p~ || q) pulls mass onto these tokens even where both models agree. Where the teacher is sure the
student seeks its mode; where it is not, the forward KL keeps the student from dropping the alternatives. The paper does
not print eps; 0.2 is PPO's. The control deals the same number of forward KLs out to other tokens.

eopd@full   what this package called eopd up to 0.2, a reading of the abstract: both KLs exact and over the whole
            vocabulary, tau = 1 nat
"""

from dataclasses import dataclass

import torch

from harness.losses import cross_entropy, forward_kl, log_probs, reverse_kl
from harness.method import Method, Needs, Step, Tokens, recorded_or
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    tau: float = option(
        0.8, "entropy of the teacher above which the forward KL joins, nats", low=0, high=100, source="EOPD: 0.8"
    )
    forward: float = option(1.0, "alpha, weight of the forward KL", low=0, high=1000, source="EOPD: 1")
    shuffle: bool = option(False, "control: the forward KL joins at shuffled tokens of the optimizer step")
    top_k: int = option(
        16, "teacher's tokens in the forward KL; 0 is the whole vocabulary", low=0, source="EOPD: 16", before=0
    )
    reverse: str = option(
        "sampled", "the reverse KL", choices=("sampled", "exact"), source="EOPD, equation 8", before="exact"
    )
    clip: float = option(0.2, "eps, of the ratio to the sampler", low=0, high=1, source="assumed: PPO's", before=0.2)


class EOPD(Method):
    """Reverse KL of the sampled token on own text, with forward KL where the teacher is unsure."""

    name, paper, Config = "eopd", "https://arxiv.org/abs/2603.07079", Config
    variants = {"full": {"tau": 1.0, "top_k": 0, "reverse": "exact"}}

    @property
    def needs(self) -> Needs:
        return Needs(teacher="signal", exact=True, gate=True, ranks=self.config.top_k)

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.STUDENT,)

    def objective(self, tokens: Tokens):
        tokens.metrics["unsure"] = tokens.gate
        return self._reverse(tokens) + self.config.forward * tokens.gate * self._forward(tokens)

    def _reverse(self, tokens: Tokens):
        if self.config.reverse == "exact":
            return reverse_kl(tokens.student, tokens.teacher)
        log_q = -cross_entropy(tokens.student, tokens.labels)
        old = recorded_or(tokens.sampler_log_prob, log_q)
        ratio, advantage = (log_q - old).exp(), -cross_entropy(tokens.teacher, tokens.labels) - old
        clipped = ratio.clamp(1 - self.config.clip, 1 + self.config.clip)
        return torch.maximum(-ratio * advantage, -clipped * advantage)

    def _forward(self, tokens: Tokens):
        if not self.config.top_k:
            return forward_kl(tokens.student, tokens.teacher)
        log_q, log_p = log_probs(tokens.student, tokens.teacher)
        log_p, ids = log_p.topk(min(self.config.top_k, log_p.shape[-1]), -1)
        log_p = log_p.log_softmax(-1)
        p = log_p.exp()
        return (p * (log_p - log_q.gather(-1, ids))).masked_fill(p == 0, 0).sum(-1)

    def weight(self, tokens: Tokens):
        entropy = cross_entropy(tokens.teacher, tokens.teacher)  # H(p), [N]
        return (entropy > self.config.tau).float()

    def card(self):
        c = self.config
        part = f"of the teacher's top {c.top_k} " if c.top_k else ""
        kind = {"sampled": "reverse KL, one sample, clipped,", "exact": "reverse KL"}[c.reverse]
        return {
            "divergence": f"{kind} + {c.forward:g} forward KL {part}where H(p) > {c.tau:g}",
            "token_weights": "entropy gate" + ("/shuffled" if c.shuffle else ""),
        }
