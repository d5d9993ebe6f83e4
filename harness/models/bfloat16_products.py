"""Products of bfloat16 matrices on processors without bfloat16 instructions, computed in float32.

Such a processor (x86 before AVX-512, most laptops) multiplies bfloat16 matrices at an eighth of the speed of float32:
9 against 77 GFLOP/s on one AVX2 core. The kernels for it widen the numbers one by one, add up in float32, and round the
sum to bfloat16. Here whole matrices are widened, multiplied by the float32 kernel, and the result is rounded; only the
order of the additions differs, as it does between any two kernels. Memory: the widened operands of one product.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch

PRODUCTS = ("mm", "addmm", "bmm", "baddbmm", "addmm_", "baddbmm_")  # all that a linear layer and attention call


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch tells of every replacement
        for name in PRODUCTS:
            kernel = torch.library.get_kernel(f"aten::{name}", "CPU")
            library.impl(name, _widened(kernel, name.endswith("_")), "CPU", with_keyset=True, allow_override=True)
    return library


def _widened(kernel: Any, in_place: bool) -> Callable[..., torch.Tensor]:
    def product(keys: Any, *operands: torch.Tensor, **factors: Any) -> torch.Tensor:
        if any(operand.dtype is not torch.bfloat16 for operand in operands):
            return kernel.call_boxed(keys, *operands, **factors)
        wide = kernel.call_boxed(keys, *(operand.float() for operand in operands), **factors)
        return operands[0].copy_(wide) if in_place else wide.bfloat16()

    return product
