"""Runs attempts as SLURM jobs through submitit. The results folder must be on a file system that all nodes share."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import BadInput, install
from harness.sweep.cells import SweepCell
from harness.sweep.jobs import SweepOutcome, ended, run


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
        # On import submitit would set up logging for the whole process and write to stdout, where --json prints.
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
        wanted = {"timeout_min": 24 * 60, "cpus_per_task": 1, "gpus_per_node": 1 if gpus else 0, "name": "harness"}
        try:
            self.executor.update_parameters(**{**wanted, **values})
        except (NameError, TypeError, ValueError, AssertionError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BadInput(f"--slurm: {reason}") from None

    def submit(self, cell: SweepCell, log: Path) -> SlurmJob:
        extra = {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": "1"}
        return SlurmJob(self.executor.submit(run, cell.arguments, str(log.absolute()), extra), log)

    def close(self) -> None:
        """Closes nothing; gives the scheduler a moment to write its files."""
        time.sleep(0)
