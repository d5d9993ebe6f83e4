"""Multi-level optimal transport (MultiLevelOT, Cui et al. 2024, https://arxiv.org/abs/2412.14528; its released code).

    L = mean over texts of  [ mean_t -log q(y_t)  +  lambda ( HAD + a SL + b SD ) ]
    HAD = mean_g sum_i |p_g(i) - q_g(i)|        SL = mean_g -sum_i S(q_g)_i log S(p_g)_i
    SD = sum_mn P_mn C_mn,   C_mn = sum_i |S(p_m / 2)_i - S(q_n / 2)_i|,   P = Sinkhorn of exp(-C / eps)

for a teacher with another tokenizer. p and q are the softmax of the logits over their standard deviation in the
vocabulary. Of each side the ``k`` words count that have the largest sum over the whole text, in that order: (i) is one
word of the teacher and one of the student through a text. g pairs the n-th token with the n-th, ends included; m and n
run over all tokens of the two readings. S is the softmax over the k words, of what are probabilities already; P has its
rows, then its columns divided by their sums, ten times, and gradient flows through it.

This is the released code for a batch of one text whose two readings are equally long. There the words are ranked over a
batch, whose shorter texts are filled up with zeros that SL and SD count; SD is summed over a batch. The paper's tables
use other settings, which were not available to us.
"""

from dataclasses import dataclass

import torch
from harness.methods._pairs import hard

from harness.method import Method, Needs, Pairing, Step, Tokens
from harness.options import option
from harness.types import Source

RELEASE = "models/distillation_model.py"


@dataclass(frozen=True)
class Config:
    weight: float = option(1.0, "lambda, of the distances", low=0, high=1000, source=f"{RELEASE}: 1")
    hard: float = option(1.0, "of the cross-entropy", low=0, high=1000, source=f"{RELEASE}: 1")
    logarithmic: float = option(0.1, "a, of SL", low=0, high=1000, source=f"{RELEASE}: 0.1")
    sinkhorn: float = option(1e-4, "b, of SD", low=0, high=1000, source=f"{RELEASE}: 0.1 x 0.001")
    k: int = option(50, "words of each side that are compared", low=1, source=f"{RELEASE}: 50")
    epsilon: float = option(0.1, "eps, of the entropy of P", low=1e-3, high=1000, source=f"{RELEASE}: 0.1")
    rounds: int = option(10, "of Sinkhorn", low=1, high=1000, source=f"{RELEASE}: n_iters 10")
    text: str = option("teacher", "fixed text to distil on", choices=("teacher", "data", "student"))
    temperature: float = option(1.0, "of p and q", low=0.05, high=100, source=f"{RELEASE}: 1")


class MultiLevelOT(Method):
    """Optimal transport between ranked words, by token and by text, for teachers with any tokenizer."""

    name, paper, Config = "multilevel_ot", "https://arxiv.org/abs/2412.14528", Config
    reduction = "sequence"

    @property
    def needs(self) -> Needs:
        return Needs("signal", exact=True, pairing=Pairing(by="place"), whole=True, ranks=self.config.k)

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source(self.config.text),)

    def objective(self, tokens: Tokens):
        c, pairs, parts = self.config, tokens.pairs, []
        k = min(c.k, tokens.student.shape[-1], tokens.teacher.shape[-1])
        for text in tokens.sequence.unique_consecutive():
            mine, theirs = tokens.sequence == text, pairs.sequence == text
            q, p = self._words(tokens.student[mine], k), self._words(tokens.teacher[theirs], k)
            n = min(len(q), len(p))
            distance = (p[:n] - q[:n]).abs().sum(-1)
            logarithmic = -(q[:n].softmax(-1) * p[:n].log_softmax(-1)).sum(-1)
            # Every token of the text carries the distance of the texts, so that its mean is that distance.
            value = (distance + c.logarithmic * logarithmic).sum() / max(n, 1) + c.sinkhorn * self._transport(p, q)
            parts.append(value.expand(len(q)))
        return hard(tokens, c.hard) + c.weight * torch.cat(parts)

    def _words(self, logits, k: int):
        """[n, k] the probabilities of the k words that are likeliest in a text of n tokens, likeliest first."""
        wide = logits if logits.dtype == torch.float64 else logits.float()
        p = (wide / (wide.std(-1, keepdim=True) + 1e-4) / self.config.temperature).softmax(-1)
        return p[:, p.detach().sum(0).topk(k).indices]

    def _transport(self, p, q):
        """SD of the words [m, k] and [n, k] of two readings."""
        if not len(p):
            return 0.0
        cost = torch.cdist((p / 2).softmax(-1), (q / 2).softmax(-1), p=1)
        plan = (-cost / self.config.epsilon).exp()
        for _ in range(self.config.rounds):
            plan = plan / plan.sum(1, keepdim=True)
            plan = plan / plan.sum(0, keepdim=True)
        return (plan * cost).sum()

    def card(self):
        c = self.config
        kind = f"cross-entropy x {c.hard:g} + {c.weight:g} x (gaps of {c.k} ranked words"
        return {
            "divergence": f"{kind} + {c.logarithmic:g} x logarithmic + {c.sinkhorn:g} x Sinkhorn distance of texts)",
            "loss_temperature": c.temperature,
        }
