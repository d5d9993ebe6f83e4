"""One attempt at one cell: ``harness run`` in its own process, which ends with the process that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness import safe_read
from harness.errors import BadInput
from harness.sweep.cells import SweepCell

BAD_INPUT = 2  # the exit code of bad input, which a retry would repeat


@dataclass(frozen=True)
class SweepOutcome:
    """How an attempt ended: exit code (negative: a signal; None: the worker was lost), run ids, last log line."""

    code: int | None
    run_ids: tuple[str, ...] = ()
    message: str = ""

    @property
    def well(self) -> bool:
        return self.code == 0

    @property
    def final(self) -> bool:
        """Whether a retry would end the same way."""
        return self.code in (0, BAD_INPUT)


class SweepJob(Protocol):
    """A running attempt."""

    def outcome(self) -> SweepOutcome | None:
        """How it ended, or None while it runs. Returns without waiting."""

    def cancel(self) -> None:
        """Stops it."""


class Executor(Protocol):
    """Runs attempts, ``workers`` at once."""

    workers: int

    def submit(self, cell: SweepCell, log: Path) -> SweepJob: ...

    def close(self) -> None: ...


def start(arguments: Sequence[str], log: Path, extra: Mapping[str, str]) -> subprocess.Popen:
    """Starts ``harness ARGUMENTS`` with both streams in files: ``log`` and, for its JSON, ``log`` + ``.json``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as said, log.with_suffix(".json").open("wb") as printed:
        return subprocess.Popen(
            [sys.executable, "-m", "harness", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=said,
            env=os.environ | extra,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            start_new_session=True,  # Ctrl-C reaches the sweep alone, which then ends its runs
        )


def ended(code: int, log: Path) -> SweepOutcome:
    """The outcome of a process that ended with ``code``."""
    if code == 0:
        try:
            printed = safe_read.value(safe_read.content(log.with_suffix(".json"), safe_read.LARGE), finite=False)
            return SweepOutcome(0, tuple(record["run_id"] for record in printed["records"]))
        except (BadInput, KeyError, TypeError):
            return SweepOutcome(None, (), f"{log.with_suffix('.json').name} holds no records")
    return SweepOutcome(code, (), last_line(log) or f"ended with {code}")


def run(arguments: Sequence[str], log: str, extra: Mapping[str, str]) -> int:
    """Runs an attempt to its end and returns the exit code. Executed by workers on other machines."""
    process = start(arguments, Path(log), extra)
    try:
        return process.wait()
    finally:
        process.kill()


def last_line(log: Path) -> str:
    """The last line of a log, shortened; empty where there is none."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 4096))
            lines = stream.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    said = [line.strip() for line in lines if line.strip()]
    return said[-1].removeprefix("harness: ")[:300] if said else ""


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
