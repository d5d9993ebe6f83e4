"""Distillation through imitation learning (ImitKD, Lin et al. 2020, https://arxiv.org/abs/2009.07253).

    L = -(1/N) sum_t sum_v p_t(v) log q_t(v)      on data with probability base^(-i/I), else on the student's own text

p teacher, q student, i of I optimizer steps: the share of data falls from 1 to 1/base, so that the student meets its
own mistakes more and more often. No gradient flows through the sampling. The released code chooses between data and own
text for every sequence; here every optimizer step chooses for all of its sequences.

imitkd@hard   what the released code computes: the target is the teacher's likeliest word on own text and the data's
              own word on data
"""

from dataclasses import dataclass

import torch

from harness.losses import cross_entropy
from harness.method import Method, Needs, Step, Tokens
from harness.options import option
from harness.types import Source

CODE = "asappresearch/imitkd, configs/wmt/imitkd.yaml"


@dataclass(frozen=True)
class Config:
    base: float = option(200.0, "by which the share of data falls over the run", low=1, high=1e9, source=f"{CODE}: 200")
    target: str = option("distribution", "of the cross-entropy", choices=("distribution", "likeliest"))
    text: str = option("data", "text of the other steps", choices=("data", "teacher"), source="paper")


class ImitKD(Method):
    """Cross-entropy to the teacher on data and a growing share of the student's samples."""

    name, paper, Config = "imitkd", "https://arxiv.org/abs/2009.07253", Config
    variants = {"hard": {"target": "likeliest"}}

    @property
    def needs(self) -> Needs:
        # The likeliest word of a top-k signal may be its bucket, which is not a word.
        return Needs(teacher="signal", exact=self.config.target == "likeliest")

    def sources(self, step: Step) -> tuple[Source, ...]:
        share = self.config.base ** (-step.index / step.total)
        return (Source(self.config.text) if step.draw < share else Source.STUDENT,)

    def objective(self, tokens: Tokens):
        if self.config.target == "distribution":
            return cross_entropy(tokens.student, tokens.teacher)
        own = tokens.from_source(Source.STUDENT)
        return cross_entropy(tokens.student, torch.where(own, tokens.teacher.argmax(-1), tokens.labels))

    def card(self):
        return {"divergence": f"cross-entropy to the teacher's {self.config.target}"}
