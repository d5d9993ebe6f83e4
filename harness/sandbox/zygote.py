"""The process inside the wall that forks one child per program.

It is started once for many programs, because starting an interpreter costs more than most programs. It runs
no untrusted code and holds no secret: neither expected outputs nor an environment. Programs reach it as file
descriptors that only the child reads. After each program everything that it may have left is destroyed.

Messages, one packet each: ``run`` with two descriptors (job, result), and ``kill``; the answers are JSON objects.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import sysconfig
from importlib import import_module
from typing import Any

from harness.sandbox import kernel, program
from harness.sandbox.job import NOT_SHUT_IN

MEMORY = 4 * 2**30  # bytes of address space, as in evalplus
FILE_SIZE = 2**24
OPEN_FILES = 64
# Loaded before the walls close, since those that link to a shared library could not find it afterwards, and
# since a fork is quicker than an import.
_LOADED = """
    array ast bisect bz2 calendar cmath collections.abc copy ctypes dataclasses datetime decimal difflib enum
    fractions functools hashlib heapq io itertools json lzma math numbers operator queue random re sqlite3
    statistics string struct sys textwrap threading time timeit traceback types typing unicodedata unittest uuid
    zlib zoneinfo
"""


def main(control: int, layers: list[str], root: str, packages: str) -> None:
    """Close the walls of ``layers``, say how it went, then serve until the other end closes ``control``.

    ``root`` is the folder that holds this package; ``packages`` the one that holds NumPy.
    """
    sys.path.remove(root)
    channel = socket.socket(fileno=control)
    for name in _LOADED.split():
        try:
            import_module(name)
        except ImportError:
            continue  # an interpreter built without it: programs that want it fail as they would outside
    try:
        readable = _interpreter_directories() + _load_numpy(packages)
        if "namespaces" in layers:
            _enter_namespaces(readable)
        else:
            os.chdir("/")
        kernel.adopt_orphans()
        server = _Server(channel, layers, readable)
        server.rehearse()
    except OSError as error:
        channel.send(json.dumps({"refused": str(error)}).encode())
        return
    channel.send(json.dumps({"ready": layers}).encode())
    server.serve()


def _interpreter_directories() -> list[str]:
    paths = {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), *sys.path}
    kept: list[str] = []
    for path in sorted(path for path in paths if os.path.isdir(path)):
        if not any(path.startswith(parent + "/") for parent in kept):
            kept.append(path)
    return kept


def _load_numpy(packages: str) -> list[str]:
    """NumPy, which every machine that runs evalplus has, and programs therefore use. Returns its folders."""
    sys.path.append(packages)
    try:
        import_module("numpy")
    except ImportError:
        return []
    finally:
        sys.path.remove(packages)
    folders = (os.path.join(packages, name) for name in ("numpy", "numpy.libs"))
    return [path for path in folders if os.path.isdir(path)]


def _enter_namespaces(readable: list[str]) -> None:
    kernel.unshare_all()
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    kernel.die_with_parent()
    folders = [os.path.join(path, name) for path in readable for name in ("site-packages", "dist-packages")]
    kernel.new_root(readable, [path for path in folders if os.path.isdir(path)])
    socket.sethostname("sandbox")


class _Server:
    def __init__(self, channel: socket.socket, layers: list[str], readable: list[str]):
        self.channel = channel
        self.layers = layers
        self.readable = readable
        self.work = kernel.work_directory(readable)
        self.runs = 0
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.environ.clear()
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
        sys.stderr.reconfigure(encoding="utf-8", errors="backslashreplace")
        gc.collect()
        gc.freeze()

    def rehearse(self) -> None:
        """Shut in a child that does nothing. Raises OSError when a layer is refused."""
        reader, writer = os.pipe()
        pid = self.fork()
        if pid == 0:
            try:
                self.shut_in(cpu_seconds=10)
            except OSError as error:
                os.write(writer, str(error).encode())
            finally:
                os._exit(0)
        os.close(writer)
        os.close(os.pidfd_open(pid))
        with os.fdopen(reader) as answers:
            refused = answers.read()
        self.reap(pid)
        if refused:
            raise OSError(refused)

    def serve(self) -> None:
        while True:
            message, descriptors, _, _ = socket.recv_fds(self.channel, 64, 2)
            if not message:
                return
            if message != b"run":
                continue  # a kill for a program that has just ended
            job, result = descriptors
            pid = self.fork()
            if pid == 0:
                self.child(job, result)
            os.close(job)
            os.close(result)
            self.supervise(pid)

    def fork(self) -> int:
        if "namespaces" in self.layers:
            kernel.fresh_work_directory(self.work, used=self.runs > 0)
        self.runs += 1
        return os.fork()

    def child(self, job: int, result: int) -> None:
        code = NOT_SHUT_IN
        try:
            task: dict[str, Any] = json.loads(_read_all(job))
            os.dup2(result, 3)
            os.closerange(4, 2**20)
            self.shut_in(task["cpu_seconds"])
            code = 0
            program.run(task, 3)
        finally:
            os._exit(code)

    def shut_in(self, cpu_seconds: int) -> None:
        """What every program meets, in this order: each step leaves the process unable to undo it."""
        os.setsid()
        kernel.die_with_parent()
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        kernel.drop_privileges()
        if "landlock" in self.layers:
            work = [self.work] if "namespaces" in self.layers else []
            kernel.restrict_files(self.readable, ["/dev/null", *work])
        if "seccomp" in self.layers:
            kernel.restrict_calls()

    def supervise(self, pid: int) -> None:
        """Wait until the program ends or is to be ended; tell how it ended."""
        ended = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        poll.register(self.channel, select.POLLIN)
        if any(descriptor != ended for descriptor, _ in poll.poll()):  # kill, or nobody is there any more
            os.kill(pid, signal.SIGKILL)
        os.close(ended)
        status, usage = self.reap(pid)
        answer = {"ended": status, "cpu": usage.ru_utime + usage.ru_stime, "memory": usage.ru_maxrss * 1024}
        self.channel.send(json.dumps(answer).encode())

    def reap(self, pid: int) -> tuple[int, resource.struct_rusage]:
        """End of the program and of whatever it started. Returns its exit code (negative: signal) and usage."""
        _, status, usage = os.wait4(pid, 0)
        while True:
            if "namespaces" in self.layers:
                _kill(-1)  # as process 1: everything else in this namespace
            else:
                _kill(-pid)
                for child in _children():
                    _kill(child)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return os.waitstatus_to_exitcode(status), usage


def _children() -> list[int]:
    """This process's children: after the death of a program, all that it has left behind."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(word) for word in file.read().split()]


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _read_all(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return file.read()
