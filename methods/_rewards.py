"""Shared by methods that learn from a grader's scores: advantages within a group, and the clipped surrogate."""

import torch

from harness.losses import cross_entropy
from harness.method import recorded_or

EPSILON = 1e-4  # added to the deviation, as in TRL


def advantages(whole, scale: str):
    """[texts] each reward less the mean of its group, the texts that answer one prompt; 0 where it is unknown.

    ``scale``: divided by the standard deviation of the ``group`` or of all texts of the ``step``, or ``none``.
    """
    known = ~whole.reward.isnan()
    reward, group = whole.reward.where(known, 0.0), torch.tensor(whole.prompt)
    count = group[known].bincount(minlength=int(group.max()) + 1).clamp_min(1)
    total = lambda values: values.new_zeros(len(count)).index_add_(0, group, values * known)  # noqa: E731
    advantage = (reward - (total(reward) / count)[group]) * known
    if scale == "group":
        advantage = advantage / ((total(advantage.square()) / (count - 1).clamp_min(1)).sqrt() + EPSILON)[group]
    elif scale == "step" and known.sum() > 1:
        advantage = advantage / (reward[known].std() + EPSILON)
    return advantage


def credit(whole, *, scale: str, mean: str):
    """[M, 2] of every token the advantage of its text, and the factor of its term in the loss.

    ``mean`` over tokens or texts is the reduction's, factor 1; for a ``constant`` the sum of all terms is divided by
    texts times the longest possible response, and not by the tokens that there are.
    """
    tokens, texts = len(whole.sequence), len(whole.source)
    factor = tokens / (texts * whole.longest) if mean == "constant" else 1.0
    advantage = advantages(whole, scale)[whole.sequence]
    return torch.stack([advantage, torch.full_like(advantage, factor)], 1)


def log_prob(tokens):
    """[N] log q(y_t), with gradient, and [N] log q_old(y_t) of the student that sampled the text, without."""
    log_q = -cross_entropy(tokens.logits, tokens.labels)
    return log_q, recorded_or(tokens.sampler_log_prob, log_q)


def surrogate(log_q, old, advantage, low: float, high: float, metrics):
    """[N] -min(r A, clip(r, 1 - low, 1 + high) A), r = q / q_old."""
    ratio = (log_q - old).exp()
    clipped = ratio.clamp(1 - low, 1 + high)
    metrics.update(ratio=ratio.detach(), clipped=(clipped * advantage < ratio * advantage).float())
    return -torch.minimum(ratio * advantage, clipped * advantage)
