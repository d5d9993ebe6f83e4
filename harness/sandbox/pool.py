"""A pool of sandbox processes, one per core, shared by threads."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import queue
import sys
import time
from dataclasses import dataclass, field

from harness.errors import BadInput, RunFailed
from harness.sandbox.box import Box, Refused
from harness.sandbox.job import End, Receiver, SandboxJob, SandboxOutcome

log = logging.getLogger(__name__)

START_WAITS_S = (0, 0.5, 2, 8)  # waits before each attempt to start a box: memory may be short for a while
PATIENCE = 20.0  # wall seconds per CPU second of a limit, after which a call without progress is stalled


def shared() -> Sandbox:
    """The sandbox of this process, closed at exit. The first call creates it and logs the tier in use."""
    return _shared(os.getpid())


@functools.cache
def _shared(pid: int) -> Sandbox:
    # One per process id: after a fork, parent and child must not share the channels of the boxes.
    sandbox = Sandbox()
    log.warning("%s", sandbox.tier)

    @atexit.register
    def close() -> None:
        if os.getpid() == pid:
            sandbox.close()

    return sandbox


class Sandbox:
    """Runs programs in separate processes, isolated as one tier describes. Use it as a context manager.

    Boxes start when first needed and are reused; a lost box is replaced.
    """

    def __init__(self, workers: int | None = None, tier_in_force: Tier | None = None):
        """``workers`` defaults to the number of cores this process may use. Raises BadInput as :func:`tier` does."""
        self.tier = tier_in_force or tier()
        self.workers = workers or len(os.sched_getaffinity(0))
        self._idle: queue.LifoQueue[Box | None] = queue.LifoQueue()
        for _ in range(self.workers):
            self._idle.put(None)

    def run(self, job: SandboxJob, receive: Receiver, patience: float = PATIENCE) -> SandboxOutcome:
        """Runs ``job`` in a free box and waits for one if none is free. Thread-safe.

        Raises RunFailed when no box can be started any more.
        """
        box = self._idle.get()
        try:
            box = box or self._start()
            outcome = box.run(job, receive, patience)
        except BaseException:  # after an interrupt, or an error in the receiver, the program still runs
            self._discard(box)
            raise
        if outcome.end is End.LOST:
            self._discard(box)
        else:
            self._idle.put(box)
        return outcome

    def close(self) -> None:
        """Ends every box; waits for those in use."""
        for _ in range(self.workers):
            box = self._idle.get()
            if box is not None:
                box.close()
        for _ in range(self.workers):
            self._idle.put(None)

    def __enter__(self) -> Sandbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> Box:
        for wait in START_WAITS_S:
            time.sleep(wait)
            try:
                return Box(self.tier.layers)
            except Refused as refusal:
                refused = refusal
        raise RunFailed(f"{self.tier} no longer works: {refused}")

    def _discard(self, box: Box | None) -> None:
        if box is not None:
            box.close()
        self._idle.put(None)


# The isolation that this machine offers, found by trying it.
#
# =====  ============================================================================================
# A      namespaces (user, mount, pid, net, ipc, uts, cgroup) and seccomp; Landlock where available
# B      seccomp and Landlock, for containers that forbid namespaces; no writable directory at all
# C      limits on time and memory, and seccomp where available; does not protect this machine
# =====  ============================================================================================
#
# ``HARNESS_SANDBOX`` names the lowest tier that is accepted (default B); the best available tier is used.


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
    best = _best_tier()
    if best.name > accept:
        raise BadInput(
            f"this machine offers only {best}; allow user namespaces or run on a kernel with Landlock "
            f"(5.13 or newer), or set HARNESS_SANDBOX={best.name} to run programs of a model at your own risk"
        )
    return best


@functools.cache
def _best_tier() -> Tier:
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
