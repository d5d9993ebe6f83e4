"""The isolation that this machine offers, found by trying it.

=====  ============================================================================================
A      namespaces (user, mount, pid, net, ipc, uts, cgroup) and seccomp; Landlock where available
B      seccomp and Landlock, for containers that forbid namespaces; no writable directory at all
C      limits on time and memory, and seccomp where available; does not protect this machine
=====  ============================================================================================

``HARNESS_SANDBOX`` names the lowest tier that is accepted (default B); the best available tier is used.
"""

from __future__ import annotations

import functools
import os
import sys
from dataclasses import dataclass, field

from harness.errors import BadInput
from harness.sandbox.box import Box, Refused


@dataclass(frozen=True)
class Tier:
    """``name`` is A, B or C; ``reason`` says in one line what is missing (empty for a complete A)."""

    name: str
    layers: tuple[str, ...]
    reason: str = field(default="", compare=False)

    def __str__(self) -> str:
        parts = ", ".join((*self.layers, "limits"))
        return f"sandbox tier {self.name} ({parts})" + (f"; {self.reason}" if self.reason else "")


# From the strongest to the weakest.
TIERS = (
    Tier("A", ("namespaces", "landlock", "seccomp")),
    Tier("A", ("namespaces", "seccomp")),
    Tier("B", ("landlock", "seccomp")),
    Tier("C", ("seccomp",)),
    Tier("C", ()),
)


def tier(accept: str | None = None) -> Tier:
    """The best tier of this machine. Raises BadInput when it is below ``accept`` (A, B or C).

    ``accept`` defaults to the environment variable ``HARNESS_SANDBOX``, else to B.
    """
    accept = accept or os.environ.get("HARNESS_SANDBOX") or "B"
    if accept not in ("A", "B", "C"):
        raise BadInput(f"HARNESS_SANDBOX={accept} is not a sandbox tier; choose A, B or C")
    found = _best()
    if found.name > accept:
        raise BadInput(
            f"this machine offers only {found}; allow user namespaces or run on a kernel with Landlock "
            f"(5.13 or newer), or set HARNESS_SANDBOX={found.name} to run programs of a model at your own risk"
        )
    return found


@functools.cache
def _best() -> Tier:
    if sys.platform != "linux":
        raise BadInput(f"programs can be graded on Linux only, not on {sys.platform}")
    refusals: dict[str, None] = {}
    for candidate in TIERS:
        try:
            box = Box(candidate.layers)
            box.close()
        except Refused as refusal:
            refusals[str(refusal)] = None
        else:
            return Tier(candidate.name, candidate.layers, "; ".join(filter(None, (*refusals, box.note))))
    raise BadInput(f"no program can be run in a sandbox here: {'; '.join(refusals)}")
