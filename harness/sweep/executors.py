"""Runs attempts as processes of this machine and divides cores and GPUs among them."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from harness.errors import BadInput, install
from harness.sweep.jobs import SweepCell, SweepOutcome, ended, run, start


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


# Runs attempts as tasks of a Ray cluster. The results folder must be on a file system that all nodes share.

KNOCK_S = 10.0


class RayJob:
    """A Ray task. A lost worker or node gives an outcome without exit code."""

    def __init__(self, ray: Any, reference: Any, log: Path):
        self.ray, self.reference, self.log = ray, reference, log

    def outcome(self) -> SweepOutcome | None:
        ready, _ = self.ray.wait([self.reference], timeout=0)
        if not ready:
            return None
        try:
            return ended(self.ray.get(self.reference), self.log)
        except self.ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[0][:200]
            return SweepOutcome(None, (), f"the worker was lost ({type(error).__name__}: {reason})")

    def cancel(self) -> None:
        self.ray.cancel(self.reference, force=True)


class RayExecutor:
    """``address`` of a cluster, or None for the one in RAY_ADDRESS or, failing that, one on this machine.

    Raises BadInput if Ray is not installed or the cluster cannot be reached.
    """

    def __init__(self, workers: int, gpus: int = 0, address: str | None = None):
        try:
            import ray
        except ImportError:
            fix = f"{install('ray')}, or use --executor local"
            raise BadInput(f"--executor ray: Ray is not installed; {fix}") from None
        self.ray, self.workers, self.ours = ray, workers, not ray.is_initialized()
        address = address or os.environ.get("RAY_ADDRESS")
        if self.ours:
            _knock(address)
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # the default of Ray 3; avoids a warning
            local = {} if address else {"num_cpus": workers}
            try:
                ray.init(address=address, log_to_driver=False, logging_level="ERROR", **local)
            except (ConnectionError, OSError, RuntimeError, ValueError, TimeoutError) as error:
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
                raise BadInput(f"--executor ray: no cluster at {address or 'this machine'}: {reason}") from None
        # Ray must not retry by itself: the sweep counts and shows every lost attempt.
        options = {"num_cpus": 1, "num_gpus": 1 if gpus else 0, "max_retries": 0}
        self.remote = ray.remote(**options)(_run)

    def submit(self, cell: SweepCell, log: Path) -> RayJob:
        extra = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": "1"}
        return RayJob(self.ray, self.remote.remote(cell.arguments, str(log.absolute()), extra, os.getcwd()), log)

    def close(self) -> None:
        if self.ours:
            self.ray.shutdown()


def _knock(address: str | None) -> None:
    """Raises BadInput within seconds for an address that does not answer; Ray itself would retry for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=KNOCK_S).close()
        except OSError as error:
            reason = error.strerror or str(error)
            raise BadInput(f"--executor ray: no cluster at {address}: {reason}; ray start --head starts one") from None


def _run(arguments: Sequence[str], log: str, extra: Mapping[str, str], folder: str) -> int:
    os.chdir(folder)
    return run(arguments, log, extra)


# Runs attempts as SLURM jobs through submitit. The results folder must be on a file system that all nodes share.


class SlurmJob:
    """A submitit job. One that the scheduler lost or killed gives an outcome without exit code."""

    def __init__(self, job: Any, log: Path):
        self.job, self.log = job, log

    def outcome(self) -> SweepOutcome | None:
        if not self.job.done():
            return None
        try:
            return ended(self.job.result(), self.log)
        except Exception as error:  # submitit raises the worker's exception, or one of several types of its own
            reason = (str(error).strip().splitlines() or [""])[0][:200]
            return SweepOutcome(None, (), f"the job was lost ({type(error).__name__}: {reason})")

    def cancel(self) -> None:
        self.job.cancel()


class SlurmExecutor:
    """``settings`` are submitit's (``timeout_min``, ``slurm_partition``, ``gpus_per_node``, …).

    ``cluster`` other than "slurm" names a replacement of submitit for tests. Raises BadInput where submitit or SLURM
    is missing, or a setting is unknown.
    """

    def __init__(self, workers: int, folder: Path, settings: Mapping[str, str], gpus: int = 0, cluster: str = "slurm"):
        # On import, submitit would configure logging for the whole process and write to stdout, where --json prints.
        os.environ.setdefault("SUBMITIT_LOG_LEVEL", "NOCONFIG")
        try:
            import submitit
        except ImportError:
            fix = f"{install('slurm')}, or use --executor local"
            raise BadInput(f"--executor slurm: submitit is not installed; {fix}") from None
        if cluster == "slurm" and shutil.which("sbatch") is None:
            raise BadInput("--executor slurm: sbatch is not installed; run on a login node, or use --executor local")
        self.workers = workers
        self.executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
        values = {k: int(v) if v.isdecimal() else v for k, v in settings.items()}
        defaults = {"timeout_min": 24 * 60, "cpus_per_task": 1, "gpus_per_node": 1 if gpus else 0, "name": "harness"}
        try:
            self.executor.update_parameters(**{**defaults, **values})
        except (NameError, TypeError, ValueError, AssertionError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BadInput(f"--slurm: {reason}") from None

    def submit(self, cell: SweepCell, log: Path) -> SlurmJob:
        extra = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": "1"}
        return SlurmJob(self.executor.submit(run, cell.arguments, str(log.absolute()), extra), log)

    def close(self) -> None:
        """Closes nothing, but gives the scheduler a moment to write its files."""
        time.sleep(0)
