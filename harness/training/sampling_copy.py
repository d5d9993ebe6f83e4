"""A copy of the student in another type of number, for sampling.

Sampling reads all weights once for every token that it writes. In bfloat16 that is half the memory traffic, and a
product for which a GPU and a CPU with AMX have units of their own; the float32 weights beside it stay what the
optimizer moves. The copy is refreshed when it samples and the student has moved since.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def copy_of(model: PreTrainedModel, dtype: torch.dtype, values: Callable[[Tensor], Tensor]) -> PreTrainedModel:
    """The model with ``values`` of its weights in ``dtype``, without gradients; tied weights stay tied.

    Buffers keep their type, as they do in a model that is loaded in ``dtype``.
    """
    # Given in place of the weights, the new ones are made without a second whole model in the old type.
    cast = {id(p): nn.Parameter(values(p.detach()).to(dtype), requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, cast).eval()


@torch.no_grad()
def refresh(mine: PreTrainedModel, student: PreTrainedModel) -> None:
    """Rounds the student's weights into the copy."""
    for own, theirs in zip(mine.parameters(), student.parameters(), strict=True):
        own.copy_(theirs)
