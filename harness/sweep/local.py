"""Runs attempts as processes of this machine and divides cores and GPUs among them."""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from harness.sweep.cells import SweepCell
from harness.sweep.jobs import SweepOutcome, ended, start


class LocalJob:
    """A process. ``slot`` becomes free once :meth:`outcome` has reported its end."""

    def __init__(self, process: subprocess.Popen, log: Path, slot: int, free: set[int]):
        self.process, self.log, self.slot, self.free = process, log, slot, free

    def outcome(self) -> SweepOutcome | None:
        code = self.process.poll()
        if code is None:
            return None
        self.free.add(self.slot)
        return ended(code, self.log)

    def cancel(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.free.add(self.slot)


class LocalExecutor:
    """``workers`` processes at once; on CUDA, worker i sees device i modulo ``devices``."""

    def __init__(self, workers: int, devices: int = 0):
        self.workers, self.devices = workers, devices
        self.free = set(range(workers))

    def submit(self, cell: SweepCell, log: Path) -> LocalJob:
        slot = min(self.free)
        self.free.remove(slot)
        extra = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(max(1, cores() // self.workers))}
        if self.devices:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES")
            names = visible.split(",") if visible else [str(i) for i in range(self.devices)]
            extra["CUDA_VISIBLE_DEVICES"] = names[slot % len(names)]
        return LocalJob(start(cell.arguments, log, extra), log, slot, self.free)

    def close(self) -> None:
        """Does nothing: every process ends with its job."""


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
