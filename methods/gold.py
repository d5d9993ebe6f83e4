"""General on-policy logit distillation (GOLD, Patiño et al. 2025, TRL's GOLDTrainer and its documentation).

    L = mean over texts of mean_g  w JSD_beta(p_g, q_g on shared words) + (1 - w) sum_i |p_(i) - q_(i)| on the others

for a teacher with another tokenizer. g runs over the shortest pieces of text that both tokenizers end at. p_g is the
teacher's distribution over its words at the last token of the piece, times the probabilities that it gives to the
tokens of the piece before that one (the chain rule); q_g is the same of the student. Shared words hold the same bytes
in both vocabularies; on the others p and q are sorted, as in uld. w is the share of the teacher's words that are
shared. p and q are not divided by their mass on a part of the vocabulary, so that a part alone may be below 0. With
equal tokenizers every token is a piece and w = 1: this is the JSD of gkd. With probability ``on_policy`` a step trains
on the student's own text.

gold@trl    TRL's defaults: fixed text is the data's, ends of text are left out, and its merge "observed": the rows of a
            piece are those after its tokens, the first is the distribution, and each later one gives the probability
            of the token that it follows. The default here is TRL's merge "bayesian" with the ends matched by
            their role. TRL shares words of one name, where "Ġthe" and "▁the" are two, and bounds probabilities by 1e-8.
gold@nemo   NeMo-RL's gold loss: the mean of the log-probabilities of all tokens of a piece, forward KL on shared words
            plus the gaps of the 8,192 largest others, both of weight 1, plus cross-entropy, on the data's text; the
            means are over all pieces and over all tokens of the step. Its weights have no default in the code.
"""

import math
from dataclasses import dataclass

import torch
from harness.methods._pairs import hard, merged, per_text, sorted_gap

from harness.method import Method, Needs, Pairing, Step, Tokens
from harness.options import option
from harness.types import Source

TRL = "TRL GOLDConfig"


@dataclass(frozen=True)
class Config:
    beta: float = option(0.5, "teacher's weight in the mixture; 0 is forward KL", low=0, high=1, source=f"{TRL}: 0.5")
    on_policy: float = option(0.5, "share of steps on student text", low=0, high=1, source=f"{TRL}: lmbda 0.5")
    text: str = option("teacher", "text of the other steps", choices=("teacher", "data"))
    merge: str = option(
        "chain", "how a piece's tokens become one distribution", choices=("chain", "first", "mean"), source=f"{TRL}"
    )
    ends: str = option("matched", "ends of text", choices=("matched", "skipped"), source=f"{TRL} skips them")
    balance: str = option("overlap", "weights of the parts", choices=("overlap", "fixed"), source=f"{TRL}: overlap")
    shared: float = option(1.0, "weight of the shared words, if fixed", low=0, high=1000, source="NeMo-RL: 1")
    others: float = option(1.0, "weight of the other words, if fixed", low=0, high=1000, source="NeMo-RL: 1")
    most: int = option(0, "of the other words that are compared; 0 is all", low=0, source="NeMo-RL: uncommon_topk 8192")
    hard: float = option(0.0, "weight of the cross-entropy", low=0, high=1000, source=f"{TRL}: 0")
    temperature: float = option(1.0, "of both distributions in the loss", low=0.05, high=100, source=f"{TRL}: 1")


NEMO = {"merge": "mean", "beta": 0.0, "on_policy": 0.0, "text": "data", "balance": "fixed", "most": 8192, "hard": 1.0}


class GOLD(Method):
    """JSD on shared words and sorted probabilities on the others, over aligned pieces of text."""

    name, paper, Config = "gold", "https://huggingface.co/docs/trl/main/en/gold_trainer", Config
    variants = {"trl": {"merge": "first", "ends": "skipped", "text": "data"}, "nemo": NEMO}

    @property
    def needs(self) -> Needs:
        c = self.config
        return Needs("signal", exact=True, pairing=Pairing(ends=c.ends == "matched", after=c.merge == "first"))

    @property
    def reduction(self) -> str:
        return "token" if self.config.merge == "mean" else "sequence"

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.STUDENT if step.draw < self.config.on_policy else Source(self.config.text),)

    def objective(self, tokens: Tokens):
        c, pairs = self.config, tokens.pairs
        log_q, log_p = merged(tokens, c.temperature, c.merge)
        on_shared = _jsd(log_q[:, pairs.shared[:, 0]], log_p[:, pairs.shared[:, 1]], c.beta)
        q, p = (side[:, alone].exp() for side, alone in zip((log_q, log_p), pairs.alone, strict=True))
        w = len(pairs.shared) / log_p.shape[-1]
        weights = (w, 1 - w) if c.balance == "overlap" else (c.shared, c.others)
        # TRL has no gap where one side has no other words; its weight is 0 where the teacher has none.
        gap = sorted_gap(q, p, c.most) if q.shape[-1] and p.shape[-1] else 0.0
        values = weights[0] * on_shared + weights[1] * gap
        if self.reduction == "sequence":
            return hard(tokens, c.hard) + per_text(tokens, values)
        return hard(tokens, c.hard) + pairs.at_end(c.temperature**2 * values) * pairs.tokens_per_pair

    def card(self):
        c = self.config
        kind = (
            f"JSD on shared words and sorted gaps on others, {c.merge} of a piece, ends {c.ends}, weights {c.balance}"
        )
        extra = f", cross-entropy x {c.hard:g}" if c.hard else ""
        return {"divergence": kind + extra, "mixture_weight_of_teacher": c.beta, "loss_temperature": c.temperature}


def _jsd(log_q, log_p, beta: float):
    """[G] the JSD of measures [G, K] whose mass need not be 1."""
    p, q = log_p.exp(), log_q.exp()
    if beta in (0, 1):
        return (p * (log_p - log_q)).sum(-1) if beta == 0 else (q * (log_q - log_p)).sum(-1)
    log_m = torch.logaddexp(log_p + math.log(beta), log_q + math.log(1 - beta))
    return (beta * p * (log_p - log_m) + (1 - beta) * q * (log_q - log_m)).sum(-1)
