"""Validity-calibrated reasoning distillation, a RECONSTRUCTION (Saadi and Wang 2026, arXiv 2605.04078).

The paper is public; its formula was not available to this project, only its abstract. This is a family of readings of
that abstract: one equation with four parts, each set by name. They are in ``harness.methods._validity``.

    L = sum_t w_t D(p_t, q_t) / Z,      w_t = floor + (ceiling - floor) g(kappa r(v^T_s, v^S_s))      t in step s

proposals   "under the same prefix, the student's and the teacher's proposed next-step actions": the next ``step`` of
            both, ``proposals`` of each at ``proposal_temperature``; prefixes from ``on_policy`` and other ``text``
validity    "local validity": v of each proposed step, in [0, 1]
    likelihood       mean over the step of p_t(argmax p_t), of p_t(argmax q_t): single tokens after the text's prefix
    step-likelihood  the teacher's mean log-probability of the whole step, less that of its own likeliest step, in exp
    verifier         1 or 0 by the data's step checker; success: share of continuations that end right
    agreement        share of the teacher's samples that say so
    truth            P(True): the teacher, asked
relative    "relative local validity": r is the difference, log_odds, ratio, or the four cases (both: under-specified)
modulation  "modulates the strength of the distillation update": gate g; Z = sum w or N (``normaliser``); D; on the step
            or all that follows (``scope``); ``own_step``: where the student alone is valid -log q(y_t) replaces D

w has no gradient; gate=one is the base method. The default is ``vcrd@token-likelihood``, the form of all records up to
0.2; validity=verifier with relative=cases is the oracle. With the paper available, change ``needs`` (the actions) and
``validity`` (v) here, and in ``_validity`` RELATIVE (r), GATES and ``weight`` (g and its range), BASES (D).
"""

from dataclasses import dataclass

import harness.methods._validity as parts
import torch

from harness import losses
from harness.method import SEGMENTS, Method, Needs, Proposing, Step, Tokens
from harness.options import option
from harness.types import Source


def new(default, help, **facts):
    """An option that runs of version 0.2 did not have: they ran with its default, and keep their ids."""
    return option(default, help, before=default, **facts)


@dataclass(frozen=True)
class Config:
    validity: str = option("likelihood", "estimator of v", choices=("likelihood", *parts.ESTIMATORS))
    step: str = option("line", "unit of a step", choices=SEGMENTS)
    gate: str = option("sigmoid", "g; 'one' is the base method", choices=tuple(parts.GATES))
    kappa: float = option(4.0, "sharpness of the gate", low=0, high=1000)
    divergence: str = option("jsd", "base divergence D", choices=tuple(parts.BASES))
    beta: float = option(0.5, "teacher's weight in the JSD's mixture", low=0, high=1)
    alpha: float = option(0.1, "skew of skew_kl", low=0, high=1)
    temperature: float = option(1.0, "of both distributions in D", low=0.05, high=100)
    on_policy: float = option(0.5, "share of steps on student text", low=0, high=1)
    text: str = option("teacher", "text of the other steps", choices=("teacher", "data"))
    shuffle: bool = option(False, "control: the same weights on shuffled tokens of the optimizer step")
    relative: str = new("difference", "r of the two validities", choices=tuple(parts.RELATIVE))
    both: float = new(-1.0, "r where both are valid; -1 holds back", low=-1, high=1)
    student_only: float = new(-1.0, "r where the student alone is valid", low=-1, high=1)
    neither: float = new(-1.0, "r where neither is valid", low=-1, high=1)
    floor: float = new(0.0, "least weight", low=0, high=100)
    ceiling: float = new(2.0, "largest weight", low=0, high=100)
    normaliser: str = new("weights", "Z", choices=("weights", "tokens"))
    scope: str = new("step", "what a weight falls on", choices=("step", "rest"))
    own_step: bool = new(False, "a step that is valid where the teacher's is not teaches itself")
    proposals: int = new(1, "next steps of each model", low=1, high=64)
    proposal_temperature: float = new(0.0, "of proposals; 0 is greedy", low=0, high=10)
    tries: int = new(4, "continuations (success) or samples (agreement)", low=1, high=256)
    continued_by: str = new("teacher", "who continues, for success", choices=("teacher", "student"))
    span: int = new(8, "tokens of a span", low=1, high=4096)


class VCRD(Method):
    """Reconstruction: a divergence weighted by the relative validity of both models' next steps."""

    name, paper, Config = "vcrd", "https://arxiv.org/abs/2605.04078", Config
    reconstruction, without_checker = True, "method.validity=likelihood (or step-likelihood, agreement, truth)"
    note = "reconstruction from the public abstract; its formula was not available to us"
    variants = {"token-likelihood": {"validity": "likelihood", "relative": "difference"}}

    def __init__(self, config=None):
        super().__init__(config)
        parts.check(self.config)

    @property
    def needs(self) -> Needs:
        c, compared = self.config, False
        if c.validity in parts.ESTIMATORS and c.gate != "one":
            how = (parts.ESTIMATORS[c.validity], c.proposals, c.proposal_temperature)
            compared = Proposing(*how, tries=c.tries, continued_by=c.continued_by)
        whole, gate = c.scope == "rest", c.normaliser == "tokens"
        return Needs(teacher="signal", segment=c.step, span=c.span, whole=whole, proposals=compared, gate=gate)

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.STUDENT if step.draw < self.config.on_policy else Source(self.config.text),)

    def objective(self, tokens: Tokens):
        value = parts.BASES[self.config.divergence](tokens.student, tokens.teacher, self.config)
        if self.config.own_step and self.needs.proposals:
            alone = parts.cases(tokens.validity)[:, 2].nan_to_num(0.0) * tokens.from_source(Source.STUDENT)
            value = (1 - alone) * value + alone * losses.cross_entropy(tokens.logits, tokens.labels)
        return value if tokens.gate is None else tokens.gate * value

    def weight(self, tokens: Tokens):
        v = self.validity(tokens)
        w = parts.weight(v, self.config)
        if self.config.scope == "rest":
            w = parts.running_mean(w, tokens.position)
        tokens.metrics.update(parts.logged(v), weight=w)
        return w

    def validity(self, tokens: Tokens):
        """[N, 2] v of the teacher's and of the student's step; NaN if unknown."""
        if self.needs.proposals:
            return tokens.validity
        p = tokens.teacher.float().softmax(-1)
        proposed = torch.stack([tokens.teacher.argmax(-1), tokens.student.argmax(-1)], -1)
        return parts.step_mean(p.gather(-1, proposed), tokens.segment_id)

    def card(self):
        c, weighting = self.config, parts.in_words(self.config)
        facts = {"mixture_weight_of_teacher": c.beta, "loss_temperature": c.temperature}
        return {"divergence": c.divergence, "token_weights": weighting + ("/shuffled" if c.shuffle else "")} | facts
