"""Runs attempts as tasks of a Ray cluster. The results folder must be on a file system that all nodes share."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import BadInput, install
from harness.sweep.cells import SweepCell
from harness.sweep.jobs import SweepOutcome, ended, run

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

    Raises BadInput where Ray is not installed or the cluster cannot be reached.
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
    """Raises BadInput within seconds for an address that does not answer; Ray itself would try for minutes."""
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
