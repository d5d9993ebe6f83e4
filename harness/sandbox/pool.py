"""As many boxes as there are cores, shared by threads."""

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

START_WAITS_S = (0, 0.5, 2, 8)  # before each try to start a box: processes and memory may be short for a while
PATIENCE = 20.0  # wall seconds per CPU second of a limit, before a call is given up


def shared() -> Sandbox:
    """The sandbox of this process, ended with it. On first use it starts and says which tier is in force."""
    return _shared(os.getpid())


@functools.cache
def _shared(pid: int) -> Sandbox:
    # One per process id: after a fork the channels of the parent's boxes must not be used by two.
    sandbox = Sandbox()
    log.warning("%s", sandbox.tier)

    @atexit.register
    def close() -> None:
        if os.getpid() == pid:
            sandbox.close()

    return sandbox


class Sandbox:
    """Runs programs in separate processes behind the walls of one tier; use it as a context manager.

    Boxes start when they are first needed and are used again; a box that is lost is replaced.
    """

    def __init__(self, workers: int | None = None, tier_in_force: Tier | None = None):
        """``workers`` defaults to the cores this process may use. Raises BadInput as :func:`tier` does."""
        self.tier = tier_in_force or tier()
        self.workers = workers or len(os.sched_getaffinity(0))
        self._idle: queue.LifoQueue[Box | None] = queue.LifoQueue()
        for _ in range(self.workers):
            self._idle.put(None)

    def run(self, job: SandboxJob, receive: Receiver, patience: float = PATIENCE) -> SandboxOutcome:
        """Run ``job`` in a free box, waiting for one if need be. May be called from many threads."""
        box = self._idle.get()
        try:
            box = box or self._start()
            outcome = box.run(job, receive, patience)
        except BaseException:  # an interrupt or a failing receiver leaves the program running
            self._discard(box)
            raise
        if outcome.end is End.LOST:
            self._discard(box)
        else:
            self._idle.put(box)
        return outcome

    def close(self) -> None:
        """End every box."""
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
