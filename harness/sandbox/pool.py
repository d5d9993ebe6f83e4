"""A pool of sandbox processes, one per core, shared by threads."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import queue
import time

from harness.errors import RunFailed
from harness.sandbox.box import Box, Refused
from harness.sandbox.job import End, SandboxJob, SandboxOutcome
from harness.sandbox.tiers import Tier, tier
from harness.sandbox.transcript import Receiver

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
