"""The shuffled-weight control: the weights of an optimizer step, dealt out to other tokens of the same step.

Mean and spread stay what they are and only the information is gone, so that what a weighting method gains over its
control is due to where its weights lie.
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
    """The weights [N] of each of this process' micro-batches, each of some other token of the whole step.

    Sequences are put in the order of their places before the deal, so that it depends neither on the micro-batches
    nor on the number of processes; ``gather`` turns this process' list into the one of all.
    """
    mine = [
        (place, part.tolist())
        for batch, flat in zip(batches, weights, strict=True)
        for place, part in zip(batch.places, flat.split(batch.row.bincount().tolist()), strict=True)
    ]
    everyone = sorted(gather(mine))
    flat = torch.tensor([value for _, part in everyone for value in part])
    dealt = flat[torch.randperm(len(flat), generator=torch.Generator().manual_seed(step.index))]
    by_place = dict(zip([p for p, _ in everyone], dealt.split([len(part) for _, part in everyone]), strict=True))
    return [torch.cat([by_place[p] for p in batch.places]).to(batch.ids.device) for batch in batches]
