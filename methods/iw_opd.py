"""Importance-weighted on-policy distillation (IW-OPD 2026, https://arxiv.org/abs/2606.22600, as in TRL).

    L = sum_t w_t l_t / sum_t w_t,      l_t = -r_t sg(A_t),      A_t = log p(y_t) - log q_old(y_t)
    w_t = 1 + gamma (1 - sum_{i<t} |A_i| / sum_i |A_i|)

p teacher, q student, q_old the student that sampled y, r = q / q_old. The weight falls from 1 + gamma at the first
token to 1 as the cumulative gap to the teacher approaches its total: early tokens determine the rest (pw_opd weights
late ones). Weights are computed from whole responses and carry no gradient. Dividing by sum w redistributes the signal
without adding any; code that divides by the number of tokens takes steps larger by the mean weight.
"""

from dataclasses import dataclass

import torch

from harness.losses import cross_entropy
from harness.method import Method, Needs, Sequences, Step, Tokens, recorded_or
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    gamma: float = option(0.5, "extra weight of the first token", low=0, high=100, source="IW-OPD: 0.5")
    shuffle: bool = option(False, "control: the same weights on shuffled tokens of the optimizer step")


class IWOPD(Method):
    """On-policy reverse KL as an advantage, with larger weights on early tokens."""

    name, paper, Config = "iw_opd", "https://arxiv.org/abs/2606.22600", Config
    needs = Needs(teacher="signal", sequence_features=True)

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.STUDENT,)

    def sequence_features(self, sequences: Sequences):
        """[N, 2] weight and log p of each token; log p is kept so that the teacher's softmax is computed once."""
        gaps = sequences.table((sequences.log_p - sequences.sampler()).abs())
        # Share of the response's total gap before each token, [sequences, longest]; 0 where the total is 0.
        before = gaps.cumsum(1) - gaps
        used = before / gaps.sum(1, keepdim=True).clamp_min(torch.finfo(gaps.dtype).tiny)
        weight = 1 + self.config.gamma * (1 - sequences.flat(used).clamp(0, 1))
        return torch.stack([weight, sequences.log_p], 1)

    def weight(self, tokens: Tokens):
        tokens.metrics["weight"] = tokens.sequence_features[:, 0]
        return tokens.sequence_features[:, 0]

    def objective(self, tokens: Tokens):
        log_q = -cross_entropy(tokens.student, tokens.labels)
        old = recorded_or(tokens.sampler_log_prob, log_q)
        return -(log_q - old).exp() * (tokens.sequence_features[:, 1] - old)

    def card(self):
        c = self.config
        return {
            "divergence": "reverse KL, one sample, discount 0",
            "token_weights": f"gap used up, gamma {c.gamma:g}" + ("/shuffled" if c.shuffle else ""),
        }
