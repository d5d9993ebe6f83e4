"""Every method's published objective as an independent reference: numpy, float64, probabilities, no harness code.

A text is one sequence: p and q [n, V] the distributions of teacher and student at each of its n tokens, y [n] the
tokens, old [n] the log-probabilities of its sampler or None, source. ``value(label, c, text, q)`` is the objective of
each token [n] where only the argument ``q`` moves: what a method declares to be without gradient is read from
``text.q`` instead. ``c`` is the method's configuration, a bag of numbers.

No golden values of the research repositories are used: these formulas are what the methods' papers print.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from loss_formulas import akl_weight, kl, ref_alpha_beta, ref_jsd


@dataclasses.dataclass
class Text:
    p: np.ndarray
    q: np.ndarray
    y: np.ndarray
    old: np.ndarray | None
    source: str
    segment_id: np.ndarray  # [n] number of the line that the token is in
    step: tuple[int, int] = (0, 1)  # index, total
    state: Any = None

    def of(self, which: np.ndarray) -> np.ndarray:
        """[n] log-probability of the text's tokens."""
        return np.log(which[np.arange(len(self.y)), self.y])

    @property
    def sampler(self) -> np.ndarray:
        return self.of(self.q) if self.old is None else self.old


def entropy(p):
    return -(p * np.log(p)).sum(-1)


def returns(rewards, discount):
    """[n] sum of the rewards from each token on, written as the double sum of the definition."""
    n = len(rewards)
    return np.array([sum(discount ** (u - t) * rewards[u] for u in range(t, n)) for t in range(n)])


def minillm(c, t, q):
    if t.source == "data":
        cross = -(t.p * np.log(q)).sum(-1)
        return c.lm * (-t.of(q) + c.lm_kd * (cross + t.of(q)))
    reward, n = t.of(t.p) - t.of(t.q), len(t.y)
    left = np.arange(n, 0, -1.0) if c.per == "token" else returns(np.ones(n), c.discount)
    total = returns(reward, c.discount) / left
    if not c.own_reward:
        total = np.append(total[1:], 0.0)
    frozen, moving = (np.exp(t.of(which) - t.sampler) for which in (t.q, q))
    return frozen * kl(q, t.p) - moving * total


def distillm2(c, t, q):
    own = t.source == "student"
    gap = np.exp(t.of(t.p).mean()) - np.exp(t.of(t.q).mean())
    gap = -gap if own else gap
    a = c.alpha
    if c.adaptive and t.state:
        a = min(max(1 - (1 - c.alpha) * t.state["first_gaps"][own] / (gap + 1e-5), 0.01), c.alpha)
    beta = 1 + c.growth * min(1.0, 2 * t.step[0] / t.step[1])
    if own:
        return beta * kl(q, (1 - a) * t.p + a * (t.q if c.detach_mixture else q))
    return (2 - beta) * kl(t.p, a * t.p + (1 - a) * q)


def taid(c, t, q):
    r = t.state["ratio"] if t.state else c.start
    target = t.q ** (1 - r) * t.p**r  # softmax of the mixed logits
    return kl(target / target.sum(-1, keepdims=True), q)


def opd(c, t, q):
    advantage = returns(t.of(t.p) - t.sampler, c.discount)
    return -np.exp(t.of(q) - t.sampler) * c.coefficient * advantage


def akl(c, t, q):
    w = akl_weight(t.p, t.q, c.mu, c.crossing)
    return w * kl(t.p, q) + (1 - w) * kl(q, t.p)


def skew(c, t, q, reverse):
    if not reverse:
        return kl(t.p, c.alpha * t.p + (1 - c.alpha) * q)
    own = t.q if getattr(c, "detach_mixture", False) else q
    return kl(q, (1 - c.alpha) * t.p + c.alpha * own)


VALUES = {
    "sft": lambda c, t, q: -t.of(q),
    "seqkd": lambda c, t, q: -t.of(q),
    "kd": lambda c, t, q: kl(t.p, q),
    "rkl": lambda c, t, q: kl(q, t.p),
    "jsd": lambda c, t, q: ref_jsd(t.p, q, c.beta),
    "gkd": lambda c, t, q: ref_jsd(t.p, q, c.beta),
    "vcrd": lambda c, t, q: ref_jsd(t.p, q, c.beta),
    "tvd": lambda c, t, q: 0.5 * np.abs(t.p - q).sum(-1),
    "skl": lambda c, t, q: skew(c, t, q, False),
    "srkl": lambda c, t, q: skew(c, t, q, True),
    "distillm": lambda c, t, q: skew(c, t, q, c.divergence == "srkl"),
    "abkd": lambda c, t, q: ref_alpha_beta(t.p, q, c.alpha, c.beta),
    "akl": akl,
    "eopd": lambda c, t, q: kl(q, t.p) + c.forward * (entropy(t.p) > c.tau) * kl(t.p, q),
    "opd": opd,
    "iw_opd": lambda c, t, q: -np.exp(t.of(q) - t.sampler) * (t.of(t.p) - t.sampler),
    "pw_opd": lambda c, t, q: np.minimum(kl(t.p, q), c.cap),
    "skd": lambda c, t, q: ref_jsd(t.p, q, 0.5) if c.divergence == "jsd" else kl(t.p, q),
    "minillm": minillm,
    "distillm2": distillm2,
    "taid": taid,
}
DECLARED = {"taid", "akl", "minillm", "srkl@detached", "distillm2@release"}  # parts without gradient in the value


def weight(name, c, t):
    """[n] the weight of each token."""
    n = len(t.y)
    if name == "iw_opd":
        gaps = np.abs(t.of(t.p) - t.sampler)
        return np.array([1 + c.gamma * (1 - gaps[:i].sum() / gaps.sum()) for i in range(n)])
    if name == "pw_opd":
        return 1 + c.rise * np.arange(n) / max(n - 1, 1)
    if name == "vcrd":
        gap = t.p.max(-1) - t.p[np.arange(n), t.q.argmax(-1)]
        mean = np.array([gap[t.segment_id == s].mean() for s in t.segment_id])
        return 2 / (1 + np.exp(-c.kappa * mean))
    return np.ones(n)


def step_loss(label, c, texts):
    """The loss of an optimizer step, as each method's docstring writes it."""
    name = label.partition("@")[0]
    each = [VALUES[name](c, t, t.q) for t in texts]
    sides = sorted({t.source for t in texts})
    if name == "distillm2" or (name == "gkd" and c.text == "both"):
        return sum(np.mean([v.mean() for v, t in zip(each, texts, strict=True) if t.source == s]) for s in sides)
    if name == "minillm":
        flat = [np.concatenate([v for v, t in zip(each, texts, strict=True) if t.source == s]) for s in sides]
        return sum(v.mean() for v in flat)
    if name == "skd":
        return np.mean([v.mean() for v in each])
    w = np.concatenate([weight(name, c, t) for t in texts])
    return (w * np.concatenate(each)).sum() / w.sum()
