"""One attempt at one cell: ``harness run`` in its own process, which stops with the process that started it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from harness import safe_read
from harness.errors import BadInput
from harness.evaluation import measurement

if TYPE_CHECKING:
    from harness.request import Plan

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
    with log.open("ab") as messages, log.with_suffix(".json").open("wb") as printed:
        return subprocess.Popen(
            [sys.executable, "-m", "harness", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=messages,
            env=os.environ | extra,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
            start_new_session=True,  # Ctrl-C reaches only the sweep, which then stops its runs
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
    """The last line of a log, shortened; empty if there is none."""
    try:
        with log.open("rb") as stream:
            stream.seek(max(0, log.stat().st_size - 4096))
            lines = stream.read().decode("utf-8", "replace").split("\n")
    except OSError:
        return ""
    written = [line.strip() for line in lines if line.strip()]
    return written[-1].removeprefix("harness: ")[:300] if written else ""


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


# The cells of a grid: one (method, seed) each with all its tasks, as the arguments of a ``harness run``.


@dataclass(frozen=True)
class SweepCell:
    """``arguments`` follow ``harness``; ``recorded`` has the existing run ids, ``missing`` the tasks left to run."""

    method: str
    seed: int
    arguments: tuple[str, ...]
    recorded: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"{self.method} seed {self.seed}"

    @property
    def file(self) -> str:
        """The name of its log file, without suffix."""
        return "".join(c if c.isalnum() or c in "@-." else "_" for c in f"{self.method}-s{self.seed}")[-80:]


def cells(plan: Plan) -> list[SweepCell]:
    """The cells of a plan, in its order."""
    by_cell: dict[tuple[str, int], list] = {}
    seeds = len(dict.fromkeys(plan.request.seeds))
    names = [name for name in dict.fromkeys(plan.request.methods) for _ in range(seeds)]
    name_of = {id(training): name for training, name in zip(plan.trainings, names, strict=True)}
    for training, task, run_id in measurement.cells(plan):
        by_cell.setdefault((name_of[id(training)], training.seed), []).append((task, run_id))
    return [
        SweepCell(
            method,
            seed,
            tuple(_arguments(plan, method, seed)),
            tuple(run_id for _, run_id in tasks if run_id),
            tuple(task.title for task, run_id in tasks if not run_id),
        )
        for (method, seed), tasks in by_cell.items()
    ]


def _arguments(plan: Plan, method: str, seed: int) -> list[str]:
    request = plan.request
    arguments = ["run", "--json", "--method", method, "--seed", str(seed), "--recipe", request.recipe]
    arguments += ["--results", str(request.results), "--device", plan.device]
    arguments += [argument for task in request.tasks for argument in ("--task", task)]
    arguments += [argument for setting in request.settings for argument in ("--set", setting)]
    options = {"--student": request.student, "--teacher": request.teacher, "--judge": request.judge}
    options["--protocol"] = request.protocol
    return arguments + [argument for name, value in options.items() if value for argument in (name, value)]
