"""Forks runs from one warm process, kills them at a point, and checks what they leave behind.

A kill point is a moment within a call of a stage, or the instant before the n-th file operation below the results
folder. Linux only: helpers of a killed run become children of this process, so that it sees whether they exit.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from results.scripts.robustness import world

os.environ |= {"OMP_NUM_THREADS": "1", "HARNESS_PLUGINS": "0", "TOKENIZERS_PARALLELISM": "false"}
LONGEST_S = 600.0  # of one run; longer counts as a hang
ORPHANS_S = 30.0  # within which helpers of a killed run must exit
WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


@dataclass(frozen=True)
class Point:
    """``after`` seconds into the ``number``-th call of ``stage``; of stage "file", before that operation."""

    stage: str
    number: int
    after: float = 0.0

    def __str__(self) -> str:
        if self.stage == "file":
            return f"before file operation {self.number}"
        return f"{self.stage}, call {self.number} + {self.after * 1e3:.1f} ms"


@dataclass
class KillTrial:
    """The outcome of one run that was killed at ``points``; ``faults`` is empty where nothing was lost."""

    points: Sequence[Point]
    reached: list[bool] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass
class Trace:
    """An undisturbed run: the seconds of every call of every stage, the number of file operations, its end."""

    calls: dict[str, list[float]]
    operations: int
    end: dict
    questions: int


class Killer:
    """Forks runs of the small job from this process and kills them."""

    def __init__(self, folder: Path, method: str = world.METHOD, tasks: Sequence[str] = world.TASKS):
        self.folder, self.method, self.tasks = folder, method, tuple(tasks)
        self.shared = mmap.mmap(-1, 16)  # set by the child when the awaited call begins
        world.write_data(folder / "data")
        os.environ["HARNESS_DATA"] = str(folder / "data")
        # PR_SET_CHILD_SUBREAPER: helpers of a killed run become children of this process.
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
        command = [sys.executable, "-m", "results.scripts.robustness.world"]
        self.server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.url = f"http://127.0.0.1:{int(self.server.stdout.readline())}"
        self.judge = f"openai:judge@{self.url}/v1"

    def close(self) -> None:
        self.server.kill()
        self.server.wait()
        self.server.stdout.close()

    def questions_asked(self) -> int:
        """How many questions were put to the judge so far."""
        with urllib.request.urlopen(f"{self.url}/asked", timeout=30) as answer:
            return sum(json.loads(answer.read()).values())

    def warm(self) -> None:
        """Imports and caches everything that a run needs, by one run in a thread-free parent."""
        from harness.cli import main
        from harness.sandbox import pool

        with _quiet(self.folder / "warm.log"):
            code = main(world.words(self.folder / "warm", self.judge, self.method, self.tasks))
        if code:
            raise SystemExit((self.folder / "warm.log").read_text("utf-8", "replace"))
        pool.shared().close()

    def undisturbed(self) -> Trace:
        """The run that all others are compared with."""
        results, trace = self.folder / "whole", self.folder / "trace.json"
        before = self.questions_asked()
        code = self._wait(self._fork(results, None, trace))
        if code:
            raise SystemExit((self.folder / "child.log").read_text("utf-8", "replace"))
        calls, operations = json.loads(trace.read_text("utf-8"))
        return Trace(calls, operations, world.snapshot(results), self.questions_asked() - before)

    def trial(self, name: str, points: Sequence[Point], whole: Trace) -> KillTrial:
        """Kills a run at each of ``points`` in turn, resumes it to its end, and compares."""
        from harness.records.store import Store

        trial, results, began = KillTrial(points), self.folder / name, time.monotonic()
        for point in points:
            trial.reached.append(self._kill(results, point))
            if left := self._orphans():
                trial.faults.append(f"{left} processes outlived the kill")
            if results.exists():
                trial.faults += [f"after the kill: {w}" for w in Store(results).all()[1]]
        code = self._wait(self._fork(results, None, None))
        if code:
            log = (self.folder / "child.log").read_text("utf-8", "replace").strip().splitlines()
            trial.faults.append(f"resumed and ended with exit code {code}: {log[-1] if log else ''}")
        else:
            trial.faults += [f"differs: {d}" for d in world.differences(world.snapshot(results), whole.end)]
            trial.faults += [f"left over: {p.relative_to(results)}" for p in _leftovers(results)]
        trial.seconds = time.monotonic() - began
        return trial

    def _kill(self, results: Path, point: Point) -> bool:
        """Runs until ``point`` and kills; False where the run ended before it."""
        self.shared[:1] = b"\0"
        pid = self._fork(results, point, None)
        deadline = time.monotonic() + LONGEST_S
        while self.shared[:1] == b"\0" and time.monotonic() < deadline:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            time.sleep(0.0002)
        time.sleep(point.after)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        return os.WIFSIGNALED(status)

    def _fork(self, results: Path, point: Point | None, trace: Path | None) -> int:
        sys.stdout.flush()
        pid = os.fork()
        if pid:
            return pid
        code = 70
        try:
            with _quiet(self.folder / "child.log"):
                code = self._child(results, point, trace)
        finally:
            os._exit(code)

    def _child(self, results: Path, point: Point | None, trace: Path | None) -> int:
        from tqdm import tqdm

        from harness.cli import main

        tqdm.set_lock(threading.RLock())  # tqdm's lock is shared by all forks, and a killed one may hold it
        counted: Counter[str] = Counter()
        calls: dict[str, list[float]] = {stage: [] for stage in world.STAGES}
        began: dict[str, float] = {}  # two stages may overlap
        root = str(results)

        def enter(stage: str) -> None:
            began[stage] = time.monotonic()
            counted[stage] += 1
            if point is not None and stage == point.stage and counted[stage] == point.number:
                self.shared[:1] = b"\1"

        def leave(stage: str) -> None:
            calls[stage].append(time.monotonic() - began.pop(stage))

        def operation(event: str, arguments: tuple) -> None:
            if event == "open":
                write = isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
                if not write:
                    return
            elif event not in WRITES:
                return
            if isinstance(arguments[0], (str, os.PathLike)) and os.fspath(arguments[0]).startswith(root):
                counted["file"] += 1
                if point is not None and point.stage == "file" and counted["file"] == point.number:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(operation)
        with world.watched(enter, leave):
            code = main(world.words(results, self.judge, self.method, self.tasks))
        if trace is not None:
            trace.write_text(json.dumps([calls, counted["file"]]), "utf-8")
        _end_helpers()
        return code

    def _wait(self, pid: int) -> int:
        deadline = time.monotonic() + LONGEST_S
        while time.monotonic() < deadline:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return -1

    def _orphans(self) -> int:
        """Waits for the helpers of the killed run to exit; returns how many did not."""
        deadline = time.monotonic() + ORPHANS_S
        while True:
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            left = [pid for pid in children if int(pid) != self.server.pid]
            if not left or time.monotonic() > deadline:
                return len(left)
            time.sleep(0.05)


def _leftovers(results: Path) -> Iterator[Path]:
    """Half-written and scratch files that a finished run must not leave."""
    for pattern in ("**/*.writing*", "**/*.tmp", "work/training/*", "work/completions/*"):
        yield from results.glob(pattern)


def _end_helpers() -> None:
    """Kills the graders' helpers, which os._exit, unlike a normal exit, would leave running."""
    for task in Path("/proc/self/task").iterdir():
        for pid in (task / "children").read_text().split():
            os.kill(int(pid), signal.SIGKILL)


@contextlib.contextmanager
def _quiet(log: Path) -> Iterator[None]:
    """Redirects both streams to ``log``, at the level of file descriptors."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = os.dup(1), os.dup(2)
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, target in zip(kept, (1, 2), strict=True):
            os.dup2(descriptor, target)
            os.close(descriptor)
