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
import torch
from loss_formulas import akl_weight, kl, ref_alpha_beta, ref_jsd, softmax


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
    epoch: tuple[float, float] = (0.0, 1.0)  # passes over the prompts before the step, and of the run
    prompt: int = 0  # texts with the same number answer the same prompt
    special: tuple[int, ...] = ()  # tokens that the tokenizer calls special
    reference: np.ndarray | None = None  # [n] log-probabilities under the student before training
    rows: int = 0  # the first row that is compared, of methods that pair two tokenizers' tokens
    whole: list[Text] | None = None  # all texts of the optimizer step, this one among them
    reward: float | None = None  # the grader's score
    longest: int = 1  # tokens of a response at most
    informed: bool = False  # whether the teacher reads it behind a prompt of its own

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


def distillm2_paper(c, t, q):
    """Algorithm 1, lines 11 to 15; the loss is half of the sum of both means."""
    gaps = {"teacher": [], "student": []}
    for text in t.whole:
        gap = np.exp(text.of(text.p).mean()) - np.exp(text.of(text.q).mean())
        gaps[text.source].append(-gap if text.source == "student" else gap)
    (index, epochs), own = t.epoch, t.source == "student"
    a = c.alpha
    if index >= 1 and t.state:
        a = 1 - (1 - c.alpha) * t.state["first_gaps"][own] / (np.mean(gaps[t.source]) + 1e-5)
        a = min(max(a, 0.01), 0.1)
    e, last = int(index) + 1, int(np.ceil(epochs))
    x = index - int(index)
    beta = (e + x) / last if c.algorithm == "paper" else e / last + x
    beta = min(max(beta, 0.5), 1.0)
    if own:
        return beta * kl(q, (1 - a) * t.p + a * q) / 2
    return (1 - beta) * kl(t.p, a * t.p + (1 - a) * q) / 2


def likeliest(p, k):
    """[n, k] the ids of the k likeliest words of each token."""
    return np.argsort(-p, axis=-1, kind="stable")[:, :k]


def part(p, ids):
    return np.take_along_axis(p, ids, -1)


def eopd(c, t, q):
    unsure = entropy(t.p) > c.tau
    if c.reverse == "exact":
        return kl(q, t.p) + c.forward * unsure * kl(t.p, q)
    a = t.of(t.p) - t.sampler
    r = np.exp(t.of(q) - t.sampler)
    opd = -np.minimum(r * a, np.minimum(np.maximum(r, 1 - c.clip), 1 + c.clip) * a)
    ids = likeliest(t.p, c.top_k)
    top = part(t.p, ids)
    top = top / top.sum(-1, keepdims=True)
    return opd + c.forward * unsure * (top * np.log(top / part(q, ids))).sum(-1)


def pw_opd(c, t, q):
    return np.minimum(kl(t.p, q), c.cap) if c.shape == "linear" else pw_opsd(c, t, q)


def pw_opsd(c, t, q):
    n = len(t.y)
    w = [c.least + (1 - c.least) / (1 + np.exp(-((i - 0.5) / n - c.center) / c.slope)) for i in range(1, n + 1)]
    return np.array(w) * clipped(c, t, q)


def clipped(c, t, q):
    p, q = hot(t.p, c.temperature), hot(q, c.temperature)
    return np.minimum(p * np.log(p / q), c.clip).sum(-1)


def opsd(c, t, q):
    if c.divergence == "clipped":
        return clipped(c, t, q)
    return ref_jsd(hot(t.p, c.temperature), hot(q, c.temperature), c.beta)


def sdft(c, t, q):
    if c.k == 0:
        return kl(q, t.p) if c.alpha == 1 else kl(t.p, q) if c.alpha == 0 else ref_jsd(t.p, q, c.alpha)
    ids = likeliest(t.q, min(c.k, q.shape[-1]))
    p, q = part(t.p, ids), part(q, ids)
    if c.rest == "bucket":
        p, q = (np.concatenate([x, 1 - x.sum(-1, keepdims=True)], -1) for x in (p, q))
    return ref_jsd(p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True), c.alpha)


def gopd(c, t, q):
    reward = t.of(t.p) - t.sampler + (c.scale - 1) * (t.of(t.p) - t.reference)
    return -np.exp(t.of(q) - t.sampler) * (reward if c.sign == "code" else -reward)


def hot(p, temperature):
    """softmax(z / T) of probabilities softmax(z)."""
    raised = p ** (1 / temperature)
    return raised / raised.sum(-1, keepdims=True)


def topk_opd(c, t, q):
    ids = likeliest(t.p if c.support == "teacher" else t.q, c.k)
    p, q = part(t.p, ids), part(q, ids)
    if c.rest == "bucket":
        p, q = (np.concatenate([x, 1 - x.sum(-1, keepdims=True)], -1) for x in (p, q))
    return kl(q / q.sum(-1, keepdims=True), p / p.sum(-1, keepdims=True))


def accepted(c, t):
    return np.array([v in top for v, top in zip(t.q.argmax(-1), likeliest(t.p, c.k), strict=True)])


def selectkd(c, t, q):
    w = np.where(accepted(c, t), 1.0, c.rejected) if c.normaliser == "tokens" else 1.0
    return w * kl(t.p, q)


def todi(c, t, q):
    a = 1 / (1 + (t.q / t.p) ** c.beta)
    return (a * t.p * np.log(t.p / q) + (1 - a) * q * np.log(q / t.p)).sum(-1)


def amid(c, t, q):
    e = (1 - c.alpha) / 2
    r = (c.share * t.p**e + (1 - c.share) * q**e) ** (1 / e)
    r = r / r.sum(-1, keepdims=True)
    return kl(t.p, r) if c.divergence == "forward_kl" else ref_alpha_beta(t.p, r, c.ab_alpha, c.ab_beta)


def imitkd(c, t, q):
    if c.target == "distribution":
        return -(t.p * np.log(q)).sum(-1)
    target = t.p.argmax(-1) if t.source == "student" else t.y
    return -np.log(q[np.arange(len(target)), target])


def fdistill(c, t, q):
    m = (1 - c.share) * t.p + c.share * q
    return {
        "kl": lambda: kl(t.p, q),
        "rkl": lambda: kl(q, t.p),
        "tvd": lambda: 0.5 * 0.5 * np.abs(t.p - q).sum(-1),
        "js": lambda: c.share * kl(q, m) if t.source == "student" else (1 - c.share) * kl(t.p, m),
    }[c.divergence]()


def reopold(c, t, q):
    reward = t.of(t.p) - t.of(t.q)
    return -np.maximum(reward, np.log(c.mixture) / (1 - c.mixture)) * t.of(q)


def dpkd(c, t, q):
    """Every token of a pair shows the pair's loss; only this text moves, and the loss in it twice."""

    def score(text, which):
        ratio = text.of(which) - text.of(text.p)
        return (ratio.mean() if c.per == "token" else ratio.sum()) * (1 if text.source == "teacher" else -1)

    others = [text for text in t.whole if text.prompt == t.prompt and text is not t]
    # Token by token: what the loss becomes when this token alone moves, so that rows do not touch.
    base = sum(score(text, text.q) for text in [*others, t])
    sign = (1 if t.source == "teacher" else -1) * (1 if c.per == "sequence" else 1 / len(t.y))
    moved = base + sign * (t.of(q) - t.of(t.q))
    loss, now = (np.log1p(np.exp(-c.beta * x)) for x in (moved, base))
    return now + 2 * len(t.y) * (loss - now)


def advantage(scale, t):
    """By the mean of the group and numpy's sample deviation; the texts of one group answer one prompt."""
    group = np.array([text.reward for text in t.whole if text.prompt == t.prompt])
    deviation = {"group": group, "step": np.array([text.reward for text in t.whole])}.get(scale)
    return (t.reward - group.mean()) / (1.0 if deviation is None else deviation.std(ddof=1) + 1e-4)


def surrogate(t, q, a, low, high):
    r = np.exp(t.of(q) - t.sampler)
    return -np.minimum(r * a, np.minimum(np.maximum(r, 1 - low), 1 + high) * a)


def per_constant(t):
    """What a sum over texts times the longest response makes of a term that the loop divides by all tokens."""
    return sum(len(text.y) for text in t.whole) / (len(t.whole) * t.longest)


def grpo(c, t, q):
    u = np.exp(t.reference - t.of(q))
    value = surrogate(t, q, advantage(c.scale, t), c.clip, c.clip_high) + c.beta * (u - np.log(u) - 1)
    return value * (per_constant(t) if c.mean == "constant" else 1.0)


def kdrl(c, t, q):
    index, total = t.step
    beta = c.beta + (c.beta_end - c.beta) * index / (total - 1)
    gap = t.of(q) - t.of(t.p)
    distance = gap**2 / 2 if c.estimator == "k2" else np.exp(-gap) + gap - 1
    taught = c.taught == "all" or t.reward < 1
    return surrogate(t, q, advantage(c.scale, t), c.clip, c.clip) + beta * taught * distance


def luffy(c, t, q):
    a, probability = advantage(c.scale, t), np.exp(t.of(q))
    if t.source == "teacher":
        value = -probability / (probability + c.gamma) * a
    elif c.clip:
        value = surrogate(t, q, a, c.clip, c.clip)
    else:
        value = -np.exp(t.of(q) - t.sampler) * a
    return per_constant(t) * value - c.entropy * entropy(q)


def sdpo(c, t, q):
    ratio = np.exp(np.minimum(t.of(t.q) - t.sampler, np.log(c.ratio)))
    if c.mean == "text":  # of all texts, while the loop takes the mean over the informed ones
        ratio = ratio * np.mean([text.informed for text in t.whole])
    if c.loss == "sampled":
        return ratio * (t.of(t.q) - t.of(t.p)) * t.of(q)
    return ratio * sdft(c, t, q)


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


def uld(c, t, q):
    return -c.hard * t.of(q) + c.weight * np.abs(np.sort(q) - np.sort(t.p)).sum(-1)


def gold(c, t, q):
    """With one tokenizer: every token is a pair, from the row ``t.rows`` on."""
    n = len(t.y)
    values = ref_jsd(t.p, q, c.beta) if c.beta else kl(t.p, q)
    compared = np.where(np.arange(n) >= t.rows, values, 0.0)
    return -c.hard * t.of(q) + compared * n / max(n - t.rows, 1)


def ranked(z, k, temperature):
    """[n, k] the k words with the largest sums over a text of logits [n, V], in that order."""
    p = softmax(z / (z.std(-1, ddof=1, keepdims=True) + 1e-4) / temperature)
    return p[:, np.argsort(-p.sum(0))[:k]]


def transport(c, z, y):
    """MultiLevelOT's distance of a text's two readings, from the logits [n, V] and [m, W] of student and teacher."""
    k = min(c.k, z.shape[1], y.shape[1])
    q, p = ranked(z, k, c.temperature), ranked(y, k, c.temperature)
    n = min(len(q), len(p))
    had = np.abs(p[:n] - q[:n]).sum(-1).mean()
    logarithmic = -(softmax(q[:n]) * np.log(softmax(p[:n]))).sum(-1).mean()
    cost = np.abs(softmax(p / 2)[:, None] - softmax(q / 2)[None]).sum(-1)
    plan = np.exp(-cost / c.epsilon)
    for _ in range(c.rounds):
        plan = plan / plan.sum(1, keepdims=True)
        plan = plan / plan.sum(0, keepdims=True)
    return had + c.logarithmic * logarithmic + c.sinkhorn * (plan * cost).sum()


def multilevel_ot(c, t, q):
    return -c.hard * t.of(q) + c.weight * transport(c, np.log(q), np.log(t.p))


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
    "eopd": eopd,
    "opd": opd,
    "iw_opd": lambda c, t, q: -np.exp(t.of(q) - t.sampler) * (t.of(t.p) - t.sampler),
    "pw_opd": pw_opd,
    "pw_opsd": pw_opsd,
    "opsd": opsd,
    "sdft": sdft,
    "gopd": gopd,
    "uld": uld,
    "gold": gold,
    "multilevel_ot": multilevel_ot,
    "grpo": grpo,
    "kdrl": kdrl,
    "luffy": luffy,
    "sdpo": sdpo,
    "topk_opd": topk_opd,
    "selectkd": selectkd,
    "tip": lambda c, t, q: kl(q, t.p),
    "todi": todi,
    "amid": amid,
    "imitkd": imitkd,
    "fdistill": fdistill,
    "reopold": reopold,
    "dpkd": dpkd,
    "skd": lambda c, t, q: ref_jsd(t.p, q, 0.5) if c.divergence == "jsd" else kl(t.p, q),
    "minillm": minillm,
    "distillm2": lambda c, t, q: (distillm2 if c.algorithm == "release" else distillm2_paper)(c, t, q),
    "taid": taid,
}
DECLARED = {
    "taid",
    "akl",
    "minillm",
    "srkl@detached",
    "distillm2@release",
    "todi",
    "reopold",
    "sdpo",
    "sdpo@trl",
}  # parts without gradient in the value


def weight(name, c, t):
    """[n] the weight of each token."""
    n = len(t.y)
    if name == "iw_opd":
        gaps = np.abs(t.of(t.p) - t.sampler)
        return np.array([1 + c.gamma * (1 - gaps[:i].sum() / gaps.sum()) for i in range(n)])
    if name == "pw_opd" and c.shape == "linear":
        return 1 + c.rise * np.arange(n) / max(n - 1, 1)
    if name == "topk_opd":
        return np.array([float(c.special == "trained" or y not in t.special) for y in t.y])
    if name == "sdpo":
        return np.full(n, float(t.informed))
    if name == "selectkd" and c.normaliser == "weights":
        return np.where(accepted(c, t), 1.0, c.rejected)
    if name in ("tip", "reopold"):
        texts = t.whole or [t]
        mask = {"tip": tip_mask, "reopold": reopold_mask}[name](c, texts)
        start = sum(len(text.y) for text in texts[: next(i for i, text in enumerate(texts) if text is t)])
        return mask[start : start + n]
    if name == "vcrd":
        gap = t.p.max(-1) - t.p[np.arange(n), t.q.argmax(-1)]
        mean = np.array([gap[t.segment_id == s].mean() for s in t.segment_id])
        return 2 / (1 + np.exp(-c.kappa * mean))
    return np.ones(n)


def tip_mask(c, texts):
    h, d = (np.concatenate(x) for x in zip(*((entropy(t.q), kl(t.q, t.p)) for t in texts), strict=True))
    keep = max(1, int(c.share * len(h)))
    if c.score == "sampled":
        dice = torch.rand(
            len(h), generator=torch.Generator().manual_seed(texts[0].step[0]), dtype=torch.float64
        ).numpy()
        score = np.log(h / np.log(texts[0].p.shape[-1])) - np.log(-np.log(dice))
    else:
        h, d = ((x - x.min()) / (x.max() - x.min()) for x in (h, d))
        score = h if c.score == "entropy" else 1 - (1 - h) * (1 - d)
    return (score >= np.sort(score)[-keep]).astype(float)


def reopold_mask(c, texts):
    index, total = texts[0].step
    if index < c.switch * total:
        reward = np.concatenate([t.of(t.p) - t.of(t.q) for t in texts])
        return (reward >= np.log(c.mixture) / (1 - c.mixture)).astype(float)
    h = np.concatenate([entropy(t.q) for t in texts])
    return (h >= np.quantile(h, 1 - c.share)).astype(float)


def step_loss(label, c, texts):
    """The loss of an optimizer step, as each method's docstring writes it."""
    for t in texts:
        t.whole = texts
    name = label.partition("@")[0]
    each = [VALUES[name](c, t, t.q) for t in texts]
    sides = sorted({t.source for t in texts})
    if name == "distillm2" or (name == "gkd" and c.text == "both"):
        return sum(np.mean([v.mean() for v, t in zip(each, texts, strict=True) if t.source == s]) for s in sides)
    if name in ("minillm", "fdistill"):
        flat = [np.concatenate([v for v, t in zip(each, texts, strict=True) if t.source == s]) for s in sides]
        return sum(v.mean() for v in flat)
    if name == "luffy" or (name == "grpo" and c.mean == "constant"):  # the sum of all terms, over a constant
        extra = [getattr(c, "entropy", 0.0) * entropy(t.q) for t in texts]
        terms = sum((v + e).sum() / per_constant(t) for v, e, t in zip(each, extra, texts, strict=True))
        return terms / (len(texts) * texts[0].longest) - np.concatenate(extra).mean()
    if name == "sdpo" and c.mean == "text":
        share = np.mean([t.informed for t in texts])
        return np.mean([t.informed * v.mean() / share for v, t in zip(each, texts, strict=True)]) if share else 0.0
    by_text = ("skd", "dpkd", "uld", "multilevel_ot")
    if (
        name in by_text
        or (name == "gold" and c.merge != "mean")
        or (name == "grpo" and c.mean == "text")
        or name == "pw_opsd"
        or (name == "sdft" and c.mean == "text")
        or (name == "pw_opd" and c.shape == "sigmoid")
    ):
        return np.mean([v.mean() for v in each])
    w = np.concatenate([weight(name, c, t) for t in texts])
    return (w * np.concatenate(each)).sum() / w.sum()
