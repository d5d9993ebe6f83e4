"""Distillation with an alpha-mixture assistant (AMiD, Shin et al. 2025, https://arxiv.org/abs/2510.15982).

    L = (1/N) sum_t D(p_t || r_t),      r = (lambda p^e + (1 - lambda) q^e)^(1/e) / Z,   e = (1 - alpha) / 2

p teacher, q student, Z makes r a distribution. alpha = -1 is the arithmetic mean of DistiLLM's skew KL and GKD's JSD,
alpha = 1 the geometric mean (of TAID, there without gradient through q). lambda is the teacher's weight; at 0 r is the
student. D is the alpha-beta divergence of abkd (0.2, 0.7) or the forward KL.

The paper tunes alpha; the default here is that of the released script. Its adaptive mix of texts is left out: it is
DistiLLM's, which wraps any divergence.

amid@release   the released script: forward KL with lambda = alpha = 0.5
"""

import math
from dataclasses import dataclass

import torch

from harness.losses import alpha_beta, forward_kl, log_probs
from harness.method import Method, Needs, Step, Tokens
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    share: float = option(0.1, "lambda, teacher's weight in r", low=0, high=0.99, source="AMiD: 0.1")
    alpha: float = option(0.5, "shape of the mixture; 1 is geometric", low=-20, high=1, source="released script: 0.5")
    divergence: str = option("alpha_beta", "D", choices=("alpha_beta", "forward_kl"), source="AMiD")
    ab_alpha: float = option(0.2, "exponent of p in the alpha-beta divergence", low=-5, high=5, source="AMiD: 0.2")
    ab_beta: float = option(0.7, "exponent of r in the alpha-beta divergence", low=-5, high=5, source="AMiD: 0.7")
    text: str = option("teacher", "the text", choices=("teacher", "data"))
    temperature: float = option(1.0, "of both distributions", low=0.05, high=100)


class AMiD(Method):
    """A divergence between the teacher and a mixture of teacher and student along a chosen path."""

    name, paper, Config = "amid", "https://arxiv.org/abs/2510.15982", Config
    variants = {"release": {"divergence": "forward_kl", "share": 0.5, "alpha": 0.5}}

    @property
    def needs(self) -> Needs:
        # Only of an arithmetic mixture is the bucket of a top-k signal the mixture of two buckets.
        bounded = self.config.divergence == "forward_kl" and self.config.alpha == -1
        return Needs(teacher="signal", exact=not bounded)

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source(self.config.text),)

    def objective(self, tokens: Tokens):
        c = self.config
        log_q, log_p = log_probs(tokens.student, tokens.teacher, temperature=c.temperature)
        log_r = self._mixture(log_p, log_q)  # logits of r: the divergence divides by Z
        if c.divergence == "forward_kl":
            return forward_kl(log_r, log_p)
        return alpha_beta(log_r, log_p, alpha=c.ab_alpha, beta=c.ab_beta)

    def _mixture(self, log_p, log_q):
        """[N, V] log r up to a constant, in log space so that neither power underflows."""
        share, e = self.config.share, (1 - self.config.alpha) / 2
        if share == 0:
            return log_q
        if e < 1e-6:
            return share * log_p + (1 - share) * log_q
        least = torch.finfo(log_p.dtype).min / max(4 * e, 4)  # -inf on both sides would give a gradient of NaN
        parts = (math.log(share) + e * log_p.clamp_min(least), math.log1p(-share) + e * log_q.clamp_min(least))
        return torch.logaddexp(*parts) / e

    def card(self):
        c = self.config
        kind = f"AB({c.ab_alpha:g}, {c.ab_beta:g})" if c.divergence == "alpha_beta" else "forward KL"
        return {
            "divergence": f"{kind} to an alpha-mixture, alpha {c.alpha:g}",
            "mixture_weight_of_teacher": c.share,
            "loss_temperature": c.temperature,
        }
