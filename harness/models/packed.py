"""Products of a few rows with a large weight, in bfloat16 on a CPU.

A decoding step multiplies a few rows with every weight. In the order in which a checkpoint holds a weight, oneDNN
spends more time on bringing it into the blocks of its kernels than on the product; here that is done once for a whole
generation. Products of many rows (prompts) read the weight as it is. Only bfloat16 is packed: in float32 every text
would change by rounding, and with it what was measured before.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional

Product = Callable[[Tensor], Tensor]
LARGE = 2**20  # weights of a model from which packing it pays
LONG = 16  # tokens of a text from which it does: packing takes as long as a few steps


def pays(like: Tensor, weights: int, tokens: int) -> bool:
    """Whether to pack a model of so many ``weights``, of the type and device of ``like``, for texts of ``tokens``."""
    if like.device.type != "cpu" or like.dtype != torch.bfloat16 or weights < LARGE or tokens < LONG:
        return False
    operations = torch.ops.mkldnn
    known = all(hasattr(operations, name) for name in ("_reorder_linear_weight", "_linear_pointwise"))
    return torch.backends.mkldnn.is_available() and known and operations._is_mkldnn_bf16_supported()


def product(weights: Sequence[Tensor], bias: Tensor | None, rows: int, otherwise: Product) -> Product:
    """x [n, in] -> x W^T + bias [n, out] with the packed ``weights`` [out, in], one below the other.

    ``rows``: the n to pack for. ``otherwise`` multiplies x [B, L, in]. No gradient passes through either.
    """
    whole = weights[0] if len(weights) == 1 else torch.cat(list(weights))
    packed = torch.ops.mkldnn._reorder_linear_weight(whole.detach(), rows)
    step = torch.ops.mkldnn._linear_pointwise
    return lambda x: step(x, packed, bias, "none", [], "") if x.dim() == 2 else otherwise(x)


def plain(weight: Tensor, bias: Tensor | None) -> Product:
    return lambda x: functional.linear(x, weight, bias)
