"""The shuffled-weight control: the token weights of an optimizer step, permuted over the tokens of the same step.

The weights keep their mean and spread and lose only their information. What a weighting method gains over its control
is therefore due to which tokens get which weight.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.method import Step, WholeStep
from harness.training.batching import Batch
from harness.training.whole_step import Gather, over_step


def shuffle(weights: Sequence[Tensor], batches: Sequence[Batch], step: Step, gather: Gather) -> list[Tensor]:
    """The weights [N] of each of this process' micro-batches, permuted over all tokens of the optimizer step.

    ``gather`` turns this process' list into the list of all processes.
    """

    def deal(flat: Tensor, whole: WholeStep) -> Tensor:
        return flat[torch.randperm(len(flat), generator=torch.Generator().manual_seed(step.index))]

    return over_step(weights, batches, step, 1, gather, deal)
