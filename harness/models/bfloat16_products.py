"""Products and attention in bfloat16 on processors without bfloat16 instructions, computed in float32.

Such a processor (x86 before AVX-512, most laptops) multiplies bfloat16 matrices at an eighth of the speed of float32
(9 against 77 GFLOP/s on one AVX2 core) and takes five times as long over attention. The kernels for it widen the
numbers one by one, add up in float32, and round the sum to bfloat16. Here whole blocks are widened, the float32 kernel
computes with them, and the result is rounded. A product differs from torch's by the order of the additions, as between
any two kernels. Attention keeps its probabilities in float32, where torch rounds them.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# All that linear layers and attention call beside mm: other products, those that change their first operand, and
# the fused attention of torch.
PRODUCTS = ("addmm", "bmm", "baddbmm")
IN_PLACE = ("addmm_", "baddbmm_")
ATTENTION = "_scaled_dot_product_flash_attention_for_cpu"

WHOLE = 2**21  # a matrix of at most so many numbers is widened whole: 8 MiB
BLOCK = 2**19  # a larger one in blocks of so many, which stay in a core's cache


def native() -> bool:
    """Whether oneDNN, which computes torch's products on a CPU, is there and has bfloat16 kernels for this one."""
    found = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported")
    return found and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def needed() -> bool:
    """Whether this processor lacks kernels for bfloat16 products, and this version of torch lets us replace them."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.library, "get_kernel") and not native()


@functools.cache
def widen() -> torch.library.Library | None:
    """Replaces the kernels for the rest of the process, where :func:`needed`; the library that holds them."""
    return replace() if needed() else None


def replace() -> torch.library.Library:
    """Replaces the kernels on any processor, until the library is destroyed. Other types keep their own kernels."""
    library = torch.library.Library("aten", "IMPL")
    computed = {"mm": _product, ATTENTION: _attention, f"{ATTENTION}_backward": _rounded}
    computed |= dict.fromkeys(PRODUCTS, _rounded) | dict.fromkeys(IN_PLACE, _in_place)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch tells of every replacement
        for name, compute in computed.items():
            kernel = torch.library.get_kernel(f"aten::{name}", "CPU")
            library.impl(name, _for_bfloat16(compute, kernel), "CPU", with_keyset=True, allow_override=True)
    return library


def _for_bfloat16(compute: Callable, kernel: Any) -> Callable:
    """``compute`` where all matrices are bfloat16; else torch's ``kernel``, which refuses what does not fit."""

    def chosen(keys: Any, *operands: Any, **options: Any) -> Any:
        plain = functools.partial(kernel.call_boxed, keys)
        matrices = [x for x in operands[:3] if isinstance(x, Tensor)]
        if any(x.dtype is not torch.bfloat16 for x in matrices):
            return plain(*operands, **options)
        return compute(plain, *operands, **options)

    return chosen


def _widened(plain: Callable, operands: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """What ``plain`` makes of float32 tensors. A mask of booleans, a dropout rate and the like stay as they are."""

    def wide(value: Any) -> Any:
        return value.float() if isinstance(value, Tensor) and value.dtype is torch.bfloat16 else value

    return plain(*map(wide, operands), **{name: wide(value) for name, value in options.items()})


def _rounded(plain: Callable, *operands: Any, **options: Any) -> Any:
    result = _widened(plain, operands, options)
    return result.bfloat16() if isinstance(result, Tensor) else tuple(each.bfloat16() for each in result)


def _in_place(plain: Callable, total: Tensor, *operands: Tensor, **factors: Any) -> Tensor:
    return total.copy_(_rounded(plain, total, *operands, **factors))


def _attention(plain: Callable, *operands: Any, **options: Any) -> tuple[Tensor, Tensor]:
    """Of query, key, value [B, H, L, d]: the output, and the logarithm of each softmax's sum, which stays float32."""
    output, log_sums = _widened(plain, operands, options)
    return output.bfloat16(), log_sums


def _product(plain: Callable, left: Tensor, right: Tensor) -> Tensor:
    """left [n, k] @ right [k, m].

    The head of a model is large: 50,000 x 576 in SmolLM2. Widened whole, it would go through main memory three times
    for every token that is written. So a large product is cut along its longest side.
    """
    (rows, inner), columns = left.shape, right.shape[1]
    longest, largest = max(rows, inner, columns), max(left.numel(), right.numel())
    if largest <= WHOLE or len(right) != inner:  # torch refuses the latter
        return _rounded(plain, left, right)
    size = max(BLOCK * longest // largest, 1)
    blocks = [slice(start, start + size) for start in range(0, longest, size)]

    # Where the sides that add up are longest, the sums of the blocks add up in float32, and are rounded once.
    if longest not in (rows, columns):
        total = torch.zeros(rows, columns)
        for block in blocks:
            total += plain(left[:, block].float(), right[block].float())
        return total.bfloat16()

    product = left.new_empty(rows, columns)
    if longest == columns:
        wide = left.float()
        for block in blocks:
            product[:, block] = plain(wide, right[:, block].float())
    else:
        wide = right.float()
        for block in blocks:
            product[block] = plain(left[block].float(), wide)
    return product
