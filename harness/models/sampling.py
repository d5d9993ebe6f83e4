"""One token from logits, and when a text has reached a stop string."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from harness.types import Decoding


def uniforms(seed: int, length: int) -> list[float]:
    """``length`` uniform numbers of a seed; a longer list begins with the shorter one."""
    return torch.rand(length, generator=torch.Generator().manual_seed(seed)).tolist()


def pick(logits: Tensor, decoding: Decoding, draw: Tensor | None) -> tuple[Tensor, Tensor]:
    """Next token [rows] and its log-probability at temperature 1 [rows] from logits [rows, V]."""
    if decoding.temperature <= 0:
        token = logits.argmax(-1)
        return token, _log_prob(logits, token)
    probs = nucleus(logits, decoding.temperature, decoding.top_p)
    token = invert(probs, draw)
    if decoding.temperature == 1 and decoding.top_p >= 1:  # it was drawn from these very probabilities
        return token, probs.gather(-1, token[:, None])[:, 0].log()
    return token, _log_prob(logits, token)


def nucleus(logits: Tensor, temperature: float, top_p: float) -> Tensor:
    """[rows, V] what is drawn from, in proportion: the tempered softmax, 0 outside the nucleus of mass ``top_p``."""
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


class Stops:
    """Stop strings. A tail of the ids is decoded: a stop string may span tokens or sit inside one."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str]):
        self.tokenizer, self.stop = tokenizer, tuple(stop)
        self.tail = max((len(s.encode()) for s in stop), default=0) + 4
        self.ends = {s[-1] for s in stop if s}
        self.completes: dict[int, bool] = {}  # whether a token can be the last one of a stop string

    def hit(self, ids: list[int]) -> bool:
        """Whether the newest of ``ids`` completes a stop string; asked after every token."""
        if not self.stop:
            return False
        newest = ids[-1]
        if newest not in self.completes:
            piece = self.tokenizer.decode([newest], clean_up_tokenization_spaces=False)
            # Part of a character decodes to the replacement sign; some tokenizers drop a leading blank.
            self.completes[newest] = not piece or "\ufffd" in piece or " " in self.ends or bool(self.ends & set(piece))
        if not self.completes[newest]:
            return False
        tail = self.tokenizer.decode(ids[-self.tail :], clean_up_tokenization_spaces=False)
        return any(s in tail for s in self.stop)

    def cut(self, text: str) -> str:
        """``text`` up to the first stop string."""
        ends = [text.find(s) for s in self.stop]
        return text[: min((e for e in ends if e >= 0), default=len(text))]
