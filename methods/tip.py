"""Token importance in on-policy distillation (TIP, Xu et al. 2026, https://arxiv.org/abs/2604.14084).

    L = sum_t M_t KL(q_t || p_t) / sum_t M_t    on own text, M = 1 for the ``share`` most important tokens
    s = h + d - h d      h the student's entropy, d its divergence from the teacher, both scaled to [0, 1]

p teacher, q student. Either is enough to be important ("soft or"): where the student is unsure, and where it is sure
and wrong. h and d are scaled by the least and largest value of the optimizer step, our reading of the paper's
normalisation over the batch; that d is the reverse KL, which is also the loss, is assumed.

tip@entropy   h alone decides, the paper's first rule
tip@release   the released sampler (HJSang/OPSD_OnPolicyDistillation): tokens are drawn without replacement, in
              proportion to (H / ln V)^a (JSD / ln 2)^g, with a = 1 and g = 0
"""

import math
from dataclasses import dataclass

import torch

from harness.losses import cross_entropy, jsd, reverse_kl
from harness.method import Method, Needs, Step, Tokens, WholeStep
from harness.options import option
from harness.types import Source


@dataclass(frozen=True)
class Config:
    share: float = option(0.5, "of tokens that train", low=0.001, high=1, source="TIP: 50 %")
    score: str = option("soft_or", "of importance", choices=("soft_or", "entropy", "sampled"), source="TIP")
    entropy_power: float = option(1.0, "a, of the sampled score", low=0, high=100)
    jsd_power: float = option(0.0, "g, of the sampled score", low=0, high=100, source="released code: 0")
    shuffle: bool = option(False, "control: the mask falls on shuffled tokens of the optimizer step")


class TIP(Method):
    """Reverse KL on the student's samples, at the half of the tokens where it is unsure or wrong."""

    name, paper, Config = "tip", "https://arxiv.org/abs/2604.14084", Config
    needs = Needs(teacher="signal", exact=True, step_features=True)
    variants = {"entropy": {"score": "entropy"}, "release": {"score": "sampled"}}

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.STUDENT,)

    def objective(self, tokens: Tokens):
        return reverse_kl(tokens.student, tokens.teacher)

    def measure(self, tokens: Tokens):
        """[N, 2] entropy and divergence; of the sampled score in units of ln V and ln 2."""
        q, p = tokens.student, tokens.teacher
        entropy = cross_entropy(q, q)
        if self.config.score != "sampled":
            return torch.stack([entropy, reverse_kl(q, p)], 1)
        return torch.stack([entropy / math.log(q.shape[-1]), jsd(q, p, beta=0.5) / math.log(2)], 1)

    def step_features(self, values, whole: WholeStep):
        """[M, 1] 1 for tokens that train. Of equal scores the first in the step wins."""
        c, (h, d) = self.config, values.double().unbind(1)
        if c.score == "sampled":
            log_weight = c.entropy_power * h.clamp_min(1e-8).log() + c.jsd_power * d.clamp_min(1e-8).log()
            dice = torch.rand(len(h), generator=torch.Generator().manual_seed(whole.step.index), dtype=torch.float64)
            score = log_weight - (-dice.clamp_min(1e-300).log()).log()  # Gumbel: top k is a draw without replacement
        else:
            h, d = _scaled(h), _scaled(d)
            score = h if c.score == "entropy" else h + d - h * d
        chosen = score.sort(descending=True, stable=True).indices[: max(1, int(c.share * len(score)))]
        return torch.zeros_like(values[:, :1]).index_fill_(0, chosen, 1.0)

    def weight(self, tokens: Tokens):
        return tokens.step_features[:, 0]

    def card(self):
        c = self.config
        kept = f"{c.score} score, {c.share:g} of tokens"
        return {"divergence": "reverse KL", "token_weights": kept + ("/shuffled" if c.shuffle else "")}


def _scaled(values):
    """[M] in [0, 1], from the least to the largest value."""
    return (values - values.min()) / (values.max() - values.min()).clamp_min(1e-12)
