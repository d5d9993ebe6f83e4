"""Keeps memory that a process has freed, for what it needs next.

glibc gives every large block back to the kernel when it is freed, and gets it again page by page, zeroed. A training
step on a CPU frees and takes gradients, copies of weights and logits of hundreds of megabytes: taking 113 MB costs
50 ms, passing over it 13 ms. Nothing that is computed depends on it; the process stays as large as it once was.
"""

from __future__ import annotations

import ctypes
import os
import sys

MMAP_MAX, TRIM_THRESHOLD = -4, -1  # of mallopt: how many blocks are mapped apart; when the heap's end is given back
CHOSEN = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")  # variables of a user who has set the allocator, or another one


def keep_freed() -> bool:
    """Whether freed memory is kept from now on: where the allocator is glibc's, and nobody has set it otherwise."""
    if sys.platform != "linux" or any(name.startswith(CHOSEN) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return mallopt(MMAP_MAX, 0) == 1 and mallopt(TRIM_THRESHOLD, -1) == 1
