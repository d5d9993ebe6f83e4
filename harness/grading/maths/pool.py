"""Worker processes that compare answers, under hard limits of CPU time and memory per request.

Workers are fresh interpreters without torch; they start when first needed and are reused. One thread at a time uses
the pool. A request that exceeds a limit, crashes or is interrupted ends only the process that serves it.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import RunFailed

CPU_LIMIT_S = 5.0  # per comparison; the slowest reference answer of the shipped benchmarks takes under 1 s
WALL_LIMIT_S = 600.0  # per comparison; reached only by a process that gets no CPU time
MEMORY_LIMIT_BYTES = 2 * 2**30
REQUESTS_PER_WORKER = 24  # starting a worker takes about 2 s of CPU time, so small batches use one


class Worker:
    """One worker process. :meth:`reply` raises RunFailed if it does not start."""

    def __init__(self) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed by kill)
        limits = [str(CPU_LIMIT_S), str(MEMORY_LIMIT_BYTES)]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "harness.grading.maths.worker", *limits],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            env=_environment(),
            start_new_session=True,  # Ctrl-C does not reach the worker, and its process group can be killed
        )
        self.ready = False
        self.unread = b""
        self.request: tuple[int, bytes] | None = None
        self.deadline = 0.0

    def send(self, index: int, request: bytes) -> None:
        self.request = index, request
        self.deadline = time.monotonic() + WALL_LIMIT_S
        with contextlib.suppress(BrokenPipeError):  # it ended while idle; reply() reports it
            self.process.stdin.write(request)
            self.process.stdin.flush()

    def reply(self) -> dict[str, Any] | None:
        """The reply, or None if it is not complete yet."""
        chunk = os.read(self.process.stdout.fileno(), 65536)
        if not chunk:
            return self._ended()
        *lines, self.unread = (self.unread + chunk).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "ready" not in message:
                return message
            self.ready = True
        return None

    def _ended(self) -> dict[str, Any]:
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        self.kill()
        if self.ready:
            return {"died": "crash"}
        raise RunFailed(f"the maths grader does not start: {lines[-1] if lines else 'no message'}")

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.errors.close()


class Pool:
    """A pool of workers, at most ``size`` (default: the number of cores)."""

    def __init__(self, size: int | None = None) -> None:
        self.size = size or os.cpu_count() or 1
        self.workers: list[Worker] = []
        self.lock = threading.Lock()
        self.owner = os.getpid()

    def compare(self, pairs: Sequence[tuple[Mapping[str, Any], str]]) -> list[dict[str, Any]]:
        """For each (gold, answer) ``{"equal": bool}`` or ``{"died": "time" | "crash"}``, in order.

        A request that fails for any reason but CPU time is tried again. Raises RunFailed if no worker starts.
        """
        with self.lock:
            try:
                return self._run([json.dumps({"gold": g, "answer": a}).encode() + b"\n" for g, a in pairs])
            except BaseException:
                self._discard([w for w in self.workers if w.request is not None])
                raise

    def _run(self, requests: Sequence[bytes]) -> list[dict[str, Any]]:
        replies: list[dict[str, Any] | None] = [None] * len(requests)
        waiting = deque(enumerate(requests))
        tried: set[int] = set()
        needed = min(self.size, 1 + len(requests) // REQUESTS_PER_WORKER) if requests else 0
        unanswered = len(requests)
        while unanswered:
            # Keep the number of workers up: one may have ended with its request.
            while len(self.workers) < needed:
                self.workers.append(Worker())
            for worker in self.workers:
                if worker.request is None and waiting:
                    worker.send(*waiting.popleft())
            for worker, reply in self._collect():
                index, request = worker.request
                worker.request = None
                if worker.process.returncode is not None:
                    self.workers.remove(worker)
                # A crash may be due to another process on the machine, so try again.
                if reply.get("died") == "crash" and index not in tried:
                    tried.add(index)
                    waiting.append((index, request))
                else:
                    replies[index] = reply
                    unanswered -= 1
        return replies

    def _collect(self) -> list[tuple[Worker, dict[str, Any]]]:
        """Waits for at least one event; returns the replies that are complete."""
        busy = [w for w in self.workers if w.request is not None]
        with selectors.DefaultSelector() as selector:
            for worker in busy:
                selector.register(worker.process.stdout, selectors.EVENT_READ, worker)
            timeout = max(0.0, min(w.deadline for w in busy) - time.monotonic())
            events = selector.select(timeout)
        replies = [(key.data, key.data.reply()) for key, _ in events]
        # Workers beyond their deadline that have not replied in this round.
        late = [w for w in busy if time.monotonic() > w.deadline and w not in [key.data for key, _ in events]]
        for worker in late:
            worker.kill()
        return [(w, r) for w, r in replies if r is not None] + [(w, {"died": "crash"}) for w in late]

    def _discard(self, workers: Sequence[Worker]) -> None:
        for worker in workers:
            worker.kill()
            self.workers.remove(worker)

    def close(self) -> None:
        """Ends all workers; a later use starts new ones. Does nothing in a forked child, which does not own them."""
        if self.owner == os.getpid():
            with self.lock:
                self._discard(list(self.workers))


def _environment() -> dict[str, str]:
    """The environment of a worker: only what an interpreter needs, and a fixed hash seed for sympy's orderings."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
    package_root = str(Path(__file__).resolve().parents[3])
    return kept | {"PYTHONPATH": package_root, "PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}


_shared: Pool | None = None
_shared_lock = threading.Lock()


def shared_pool() -> Pool:
    """The pool of this process; a forked child creates its own."""
    global _shared
    with _shared_lock:
        if _shared is None or _shared.owner != os.getpid():
            _shared = Pool()
            atexit.register(_shared.close)
        return _shared
