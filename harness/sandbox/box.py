"""The trusted side of one sandbox process: starts it, sends it programs, reads their results, ends it.

What a program sends is parsed by :mod:`harness.sandbox.job`. How its process ended is reported by the zygote,
which runs no untrusted code.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.sandbox.job import End, Receiver, SandboxJob, SandboxOutcome, Transcript
from harness.sandbox.threads import MOST

TICK_S = 0.5
START_LIMIT_S = 60
ANSWER_LIMIT_S = 60
GRACE_S = 5  # seconds that a process may live on after its last result
BLOCKED_S = 10  # seconds of uninterruptible waits (a slow disk) that are not counted as idle time
TIMER_SHARE = 0.5  # share of a CPU limit that was used at least when the kernel's timer expires: it counts in ticks
BUSY_SHARE = 0.2  # least share of wall time in which a computing program is runnable, however little CPU it gets
_START = (
    "import sys; sys.path.insert(0, sys.argv[3]); from harness.sandbox.zygote import main; "
    "main(int(sys.argv[1]), sys.argv[2].split(), *sys.argv[3:])"
)


class Refused(Exception):
    """The kernel refused a layer of the sandbox, or the process did not start. The message says which."""


class _Lost(Exception):
    """The sandbox process no longer answers."""


class Box:
    """One running sandbox process. It runs one program at a time and is not thread-safe."""

    def __init__(self, layers: Sequence[str]):
        """Starts the process. Raises Refused when this machine does not offer ``layers``."""
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        root, packages = str(Path(__file__).parents[2]), sysconfig.get_path("platlib")
        # For the zygote only: it empties the environment before a program runs. The fixed hash seed makes the order of
        # a set, and with it a verdict, the same on every run. NumPy's threads would not survive the fork.
        environment = {"PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        if "LD_LIBRARY_PATH" in os.environ:
            environment["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
        with theirs, contextlib.ExitStack() as unless_started:
            unless_started.callback(self.channel.close)
            arguments = (str(theirs.fileno()), " ".join(layers), root, packages)
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-s", "-S", "-P", "-B", "-c", _START, *arguments],
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except OSError as error:
                raise Refused(f"no process could be started: {error}") from None
            unless_started.pop_all()
        try:
            hello = self._receive(START_LIMIT_S)
        except _Lost:
            self.close()
            raise Refused("the sandbox process ended while it started") from None
        if "refused" in hello:
            self.close()
            raise Refused(hello["refused"])
        self.note: str = hello["note"]  # a limitation of this machine, or ""

    def close(self) -> None:
        """Ends the process and everything that runs in it."""
        self.channel.close()
        self.process.kill()
        self.process.wait()

    def run(self, job: SandboxJob, receive: Receiver, patience: float) -> SandboxOutcome:
        """Runs ``job``. A call without progress ends as STALLED after ``patience`` times its CPU limit in wall time.

        The kernel enforces the CPU limits, so they do not depend on the load of the machine. A call that waits for
        anything but a processor, or that disarms the kernel's timer, times out after twice its limit.
        """
        # The job travels as a file in memory, the results through a pipe; the program sees neither in a path.
        reader, writer = os.pipe()
        task = os.memfd_create("job", os.MFD_CLOEXEC)
        try:
            try:
                with os.fdopen(os.dup(task), "wb") as file:
                    file.write(job.encode())
                os.lseek(task, 0, os.SEEK_SET)
                self._send(b"run", task, writer)
            finally:
                os.close(task)
                os.close(writer)
            # Follow the program, end it where it did not end by itself, and ask the zygote how the process ended.
            watch = _Watch(job, patience, self.process.pid)
            transcript = Transcript(job, receive)
            end = self._follow(reader, transcript, watch)
            # After DONE the process has a short time to end by itself.
            if end is not None or not select.select([self.channel], [], [], GRACE_S)[0]:
                self._send(b"kill")
            answer = self._receive(ANSWER_LIMIT_S)
        except _Lost:
            return SandboxOutcome(End.LOST, "it was killed or could not be reached", 0)
        finally:
            os.close(reader)
        if "lost" in answer:
            return SandboxOutcome(End.LOST, answer["lost"], 0)
        if not answer["confined"]:
            end, detail = End.LOST, "the program could not be confined and was not run"
        elif end is None:
            end, detail = _end_of(answer, job, transcript.calls)
        else:
            detail = transcript.detail or watch.detail
        return SandboxOutcome(end, detail, transcript.calls, answer["cpu"], answer["memory"])

    def _follow(self, reader: int, transcript: Transcript, watch: _Watch) -> End | None:
        """Reads until the program reports its end or has to be ended. None: its process closed the pipe."""
        while True:
            if select.select([reader], [], [], TICK_S)[0]:
                data = os.read(reader, 2**18)
                if not data:
                    return None
                end = transcript.take(data)
            else:
                end = None
            end = end or watch.look(transcript.calls)
            if end is not None:
                return end

    def _send(self, message: bytes, *descriptors: int) -> None:
        try:
            socket.send_fds(self.channel, [message], descriptors)
        except OSError:
            raise _Lost from None

    def _receive(self, limit: float) -> dict[str, Any]:
        self.channel.settimeout(limit)
        try:
            message = self.channel.recv(4096)
        except OSError:
            raise _Lost from None
        if not message:
            raise _Lost
        return json.loads(message)


class _Watch:
    """Ends a program that never returns or has disarmed its timer, but not one that is only given no processor."""

    def __init__(self, job: SandboxJob, patience: float, process: int):
        self.job = job
        self.patience = patience
        self.process = process
        self.detail = ""
        self.calls = -2  # returned calls at the last look; no look yet
        self.idle = 0.0
        self.blocked = 0.0
        self.due = 0.0

    def look(self, calls: int) -> End | None:
        """The end, if it is due. To be called often; ``calls`` is the number of calls that have returned."""
        now = time.monotonic()
        if now < self.due:
            return None
        self.due = now + TICK_S
        state = _state_of(self.process)
        cpu = state.seconds
        # An uninterruptible wait counts as idle only once it exceeds BLOCKED_S.
        if state.blocked and not state.running and self.blocked < BLOCKED_S:
            self.blocked += TICK_S
        elif not state.running:
            self.idle += TICK_S
        # The zygote counts threads exactly; this is a second limit where it cannot.
        if state.most_threads > 2 * MOST:
            self.detail = f"had {state.most_threads} threads"
            return End.DIED
        # Another call has returned: start measuring again.
        if calls != self.calls:
            self.calls, self.since, self.cpu, self.idle_before = calls, now, cpu, self.idle
            return None
        limit = self.job.limit(calls)
        waited, idle = now - self.since, self.idle - self.idle_before
        # The kernel's timer should have ended the program at ``limit``.
        if cpu - self.cpu > 2 * limit + TICK_S:
            self.detail = f"used {cpu - self.cpu:.1f} s of the processor"
            return End.TIMEOUT
        # Idle for most of the time: the program waits for something that is not a processor.
        if (waited > 2 * limit and idle > (1 - BUSY_SHARE) * waited) or self.idle > self.job.cpu_seconds:
            self.detail = f"waited {self.idle:.0f} s without computing"
            return End.TIMEOUT
        if waited > self.patience * limit:
            self.detail = f"no result for {waited:.0f} s"
            return End.STALLED
        return None


@dataclass
class _State:
    """State of a tree of processes: ``seconds`` of CPU time, a thread runnable, a thread in uninterruptible sleep."""

    running: bool = False
    blocked: bool = False
    seconds: float = 0.0
    most_threads: int = 0  # threads of the process with most


def _state_of(pid: int) -> _State:
    """The state of the process and its descendants."""
    state = _State()
    try:
        user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        state.seconds = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        state.most_threads = len(threads)
        for task in threads:
            scheduler_state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            state.running |= scheduler_state == "R"
            state.blocked |= scheduler_state == "D"
            for child in (task / "children").read_text().split():
                below = _state_of(int(child))
                state.running |= below.running
                state.blocked |= below.blocked
                state.seconds += below.seconds
                state.most_threads = max(state.most_threads, below.most_threads)
    except OSError:
        state.running = True  # a process is just ending; the next look will tell
    return state


def _end_of(answer: dict[str, Any], job: SandboxJob, calls: int) -> tuple[End, str]:
    """The end of a process that reported none itself.

    A timer's signal counts as a timeout only if the CPU time, measured by the kernel, is near the limit: a program can
    send itself the signal.
    """
    code, cpu = answer["ended"], answer["cpu"]
    timers = {-signal.SIGPROF: job.limit(calls), -signal.SIGXCPU: job.cpu_seconds}
    if cpu >= job.cpu_seconds or cpu >= TIMER_SHARE * timers.get(code, math.inf):
        return End.TIMEOUT, f"used {cpu:.1f} s of the processor"
    if code >= 0:
        return End.DIED, f"the process exited with code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return End.DIED, f"the process was ended by {name}"
