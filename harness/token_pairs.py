"""Pairs: which tokens of the student and of the teacher cover the same piece of a text.

Two tokenizers split one text at different places. A pair is a run of the student's tokens and a run of the teacher's
that are compared with each other; a method requests pairs with :class:`Pairing` and reads them as :class:`Pairs`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Pairing:
    """How to pair the tokens of the student and of the teacher, which reads the text in its own tokens.

    by: ``text`` (the shortest runs of tokens on both sides that hold the same bytes) or ``place`` (the n-th token of a
        response with the n-th)
    ends: whether the ends of both texts, matched by their role, form a pair (by ``text``), or are tokens like
        all others (by ``place``)
    after: a pair's rows are those after each of its tokens, not those that predict them
    """

    by: str = "text"
    ends: bool = True
    after: bool = False


@dataclass(frozen=True)
class Pairs:
    """The G pairs of a slice, from N tokens of the student and the corresponding M tokens of the teacher."""

    student: Tensor  # [N] pair of the student's token, from 0, ascending; -1 where it has none
    teacher: Tensor  # [M] pair of the teacher's token
    labels: Tensor  # [M] the token in the teacher's reading of the text
    sequence: Tensor  # [M] which sequence of the micro-batch
    position: Tensor  # [M] 0-based place in the teacher's reading of the response
    count: Tensor  # [N] pairs of the token's whole sequence
    shared: Tensor  # [K, 2] tokens with equal text on both sides: id of the student, id of the teacher
    alone: tuple[Tensor, Tensor]  # ids of the student's and of the teacher's other tokens, ascending
    tokens_per_pair: float  # student tokens per pair in the optimizer step, over all processes

    @property
    def size(self) -> int:
        """G."""
        return int(self.student.max()) + 1 if len(self.student) else 0

    def first(self, of: Tensor) -> Tensor:
        """[G] the first row of each pair; ``of`` is ``student`` or ``teacher``."""
        rows = (of >= 0).nonzero()[:, 0]
        return rows[_search(of[rows], self.size, right=False)]

    def last(self, of: Tensor) -> Tensor:
        """[G] the last row of each pair; ``of`` is ``student`` or ``teacher``."""
        rows = (of >= 0).nonzero()[:, 0]
        return rows[_search(of[rows], self.size, right=True) - 1]

    def at_end(self, values: Tensor) -> Tensor:
        """[N] the values [G] of the pairs, each at the last of the student's tokens of its pair; 0 elsewhere."""
        placed = values.new_zeros(len(self.student))
        return placed.index_put((self.last(self.student),), values)


def _search(pairs: Tensor, size: int, *, right: bool) -> Tensor:
    """[size] the position of each number among ascending ones, or where it would be inserted."""
    import torch

    return torch.searchsorted(pairs.contiguous(), torch.arange(size, device=pairs.device), right=right)
