"""The shuffled-weight control: the token weights of an optimizer step, permuted over the tokens of the same step.

The weights keep their mean and spread and lose only their information. What a weighting method gains over its control
is therefore due to which tokens get which weight.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from harness.method import Step
from harness.training.batching import Batch


def shuffle(
    weights: Sequence[Tensor], batches: Sequence[Batch], step: Step, gather: Callable[[list[Any]], list[Any]]
) -> list[Tensor]:
    """The weights [N] of each of this process' micro-batches, permuted over all tokens of the optimizer step.

    ``gather`` turns this process' list into the list of all processes.
    """
    # One entry per sequence: its place in the optimizer step and the weights of its tokens.
    mine = [
        (place, part.tolist())
        for batch, flat in zip(batches, weights, strict=True)
        for place, part in zip(batch.places, flat.split(batch.row.bincount().tolist()), strict=True)
    ]
    # Sorting by place makes the permutation independent of the micro-batches and of the number of processes.
    everyone = sorted(gather(mine))
    flat = torch.tensor([value for _, part in everyone for value in part])
    dealt = flat[torch.randperm(len(flat), generator=torch.Generator().manual_seed(step.index))]
    by_place = dict(zip([p for p, _ in everyone], dealt.split([len(part) for _, part in everyone]), strict=True))
    return [torch.cat([by_place[p] for p in batch.places]).to(batch.ids.device) for batch in batches]
