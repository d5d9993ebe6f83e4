"""Sampling one token from logits."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.types import Decoding


def uniforms(seed: int, length: int) -> list[float]:
    """``length`` uniform numbers of a seed; a shorter list is a prefix of a longer one."""
    return torch.rand(length, generator=torch.Generator().manual_seed(seed)).tolist()


def pick(logits: Tensor, decoding: Decoding, draw: Tensor | None) -> tuple[Tensor, Tensor]:
    """Next token [rows] and its log-probability at temperature 1 [rows] from logits [rows, V]."""
    if decoding.temperature <= 0:
        token = logits.argmax(-1)
        return token, _log_prob(logits, token)
    probs = nucleus(logits, decoding.temperature, decoding.top_p)
    token = invert(probs, draw)
    if decoding.temperature == 1 and decoding.top_p >= 1:  # the token was drawn from these probabilities
        return token, probs.gather(-1, token[:, None])[:, 0].log()
    return token, _log_prob(logits, token)


def together(token: Tensor, log_prob: Tensor) -> Tensor:
    """[2, rows] both as whole numbers of 32 bits, so that one copy brings them to the host: every copy waits."""
    return torch.stack([token.int(), log_prob.float().view(torch.int32)])


def apart(both: Tensor) -> tuple[list[int], list[float]]:
    """The tokens and log-probabilities of :func:`together`, on the host, to the last bit."""
    both = both.cpu()
    return both[0].tolist(), both[1].view(torch.float32).tolist()


def read(token: Tensor, log_prob: Tensor) -> tuple[list[int], list[float]]:
    """A step's tokens and their log-probabilities, on the host."""
    if token.device.type == "cpu":
        return token.tolist(), log_prob.tolist()
    return apart(together(token, log_prob))


def nucleus(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """[rows, V] unnormalised probabilities: softmax at ``temperature``, 0 outside the nucleus of mass ``top_p``."""
    probs = (logits if temperature == 1 else logits / temperature).softmax(-1)
    if top_p >= 1:
        return probs
    ordered, where = probs.sort(-1, descending=True)
    ordered[ordered.cumsum(-1) - ordered >= top_p] = 0
    return torch.zeros_like(probs).scatter_(-1, where, ordered)


def invert(masses: Tensor, draw: Tensor) -> Tensor:
    """[rows] tokens by inverse transform sampling: the first whose cumulative mass exceeds the uniform ``draw``."""
    steps = masses.cumsum(-1)
    token = torch.searchsorted(steps, (draw[:, None] * steps[:, -1:]), right=True)[:, 0]
    return token.clamp_max(masses.shape[-1] - 1)


def _log_prob(logits: Tensor, token: Tensor) -> Tensor:
    return logits.gather(-1, token[:, None])[:, 0] - logits.logsumexp(-1)
