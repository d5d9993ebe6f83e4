"""The process in the sandbox that forks one child per program.

It serves many programs, because starting an interpreter costs more than most programs do. It runs no untrusted code
and holds no secrets: no expected outputs and no environment. Programs arrive as file descriptors that only the child
reads. After each program its processes and files are destroyed.

Messages, one packet each: ``run`` with two descriptors (job, result), and ``kill``. Answers are JSON objects.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from typing import Any

from harness.sandbox import interpreter, kernel, program
from harness.sandbox.threads import Threads

MEMORY = 4 * 2**30  # bytes of address space, as in evalplus
FILE_SIZE = 2**24
OPEN_FILES = 64
PENDING_SIGNALS = 64
FORK_TRIES, FORK_WAIT_S = 20, 0.2  # the limit on processes may be reached for a while
_REPORT = 4  # descriptor on which a child reports that it is confined; closed before its program begins
_CONFINED, _THREADS, _NO_THREADS = b"confined", b"threads", b"no threads: "


def main(control: int, layers: list[str], root: str, packages: str) -> None:
    """Sets up the isolation ``layers``, reports the result, then serves until ``control`` is closed.

    ``root`` is the folder that contains this package, ``packages`` the one that contains NumPy.
    """
    sys.path.remove(root)
    channel = socket.socket(fileno=control)
    interpreter.load_modules()
    try:
        _prefer_for_oom_kill()
        standard, numpy = interpreter.directories(), interpreter.load_numpy(packages)
        if "namespaces" in layers:
            readable = standard + numpy
            _enter_namespaces(readable)
        else:
            readable = interpreter.without_packages(standard) + numpy
            os.chdir("/")
        kernel.adopt_orphans()
        server = _Server(channel, layers, readable)
        note = server.rehearse()
    except OSError as error:
        channel.send(json.dumps({"refused": str(error)}).encode())
        return
    channel.send(json.dumps({"ready": layers, "note": note}).encode())
    server.serve()


def _prefer_for_oom_kill() -> None:
    """Makes the kernel kill a process of the sandbox first when memory runs out."""
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("1000")


def _enter_namespaces(readable: list[str]) -> None:
    kernel.unshare_all()
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    kernel.die_with_parent()
    folders = [os.path.join(path, name) for path in readable for name in interpreter.PACKAGES]
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
        # Objects that exist now are never collected, so forked children do not copy their pages.
        gc.collect()
        gc.freeze()

    def rehearse(self) -> str:
        """Confines a child that does nothing. Raises OSError if the kernel refuses a layer; returns a note or ""."""
        # The pipe carries an error; the socket carries the listener, as in a real run.
        reader, writer = os.pipe()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = self.fork()
        if pid == 0:
            try:
                self.confine(10, theirs)
            except OSError as error:
                os.write(writer, str(error).encode())
            finally:
                os._exit(0)
        os.close(writer)
        theirs.close()
        os.close(os.pidfd_open(pid))
        with os.fdopen(reader) as answers:
            refused = answers.read()
        self.reap(pid)
        if refused:
            raise OSError(refused)
        with ours:
            message, descriptors, _, _ = socket.recv_fds(ours, 256, 1)
        for descriptor in descriptors:
            os.close(descriptor)
        return message.decode() if message.startswith(_NO_THREADS) else ""

    def serve(self) -> None:
        while True:
            message, descriptors, _, _ = socket.recv_fds(self.channel, 64, 2)
            if not message:
                return
            if message != b"run":
                continue  # kills a program that has just ended
            job, result = descriptors
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            try:
                pid = self.fork()
            except OSError as error:
                self.channel.send(json.dumps({"lost": f"no process could be started: {error}"}).encode())
                pid = -1
            if pid == 0:
                self.child(job, result, theirs)
            os.close(job)
            os.close(result)
            theirs.close()
            with ours:
                if pid > 0:
                    self.supervise(pid, ours)

    def fork(self) -> int:
        """Forks into a fresh work directory. Raises OSError when no process can be started for FORK_TRIES tries."""
        if "namespaces" in self.layers:
            kernel.fresh_work_directory(self.work, used=self.runs > 0)
        self.runs += 1
        for left in reversed(range(FORK_TRIES)):
            try:
                return os.fork()
            except BlockingIOError:
                if not left:
                    raise
                time.sleep(FORK_WAIT_S)
        raise AssertionError("the loop returns or raises")

    def child(self, job: int, result: int, report: socket.socket) -> None:
        """Confines this process and runs the job in it. Does not return."""
        code = 1
        try:
            task: dict[str, Any] = json.loads(_read_all(job))
            # The child keeps descriptors 3 (results) and 4 (report) only, so that no other is inherited by the program.
            moved = fcntl.fcntl(report.detach(), fcntl.F_DUPFD, 16)  # above the numbers that dup2 overwrites
            os.dup2(result, 3)
            os.dup2(moved, _REPORT)
            os.closerange(_REPORT + 1, 2**20)
            # Reported before the program runs: how the process ends afterwards is the program's doing.
            self.confine(task["cpu_seconds"], socket.socket(fileno=_REPORT))
            code = 0
            program.run(task, 3)
        finally:
            os._exit(code)

    def confine(self, cpu_seconds: int, report: socket.socket) -> None:
        """Confines this process, in an order in which no later step can undo an earlier one.

        Sends the listener that counts threads to ``report``, then that the process is confined, and closes it.
        """
        # A session of its own, so that the whole process group can be killed.
        os.setsid()
        kernel.die_with_parent()
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
        for limit, most in (
            (resource.RLIMIT_AS, MEMORY),
            (resource.RLIMIT_FSIZE, FILE_SIZE),
            (resource.RLIMIT_NOFILE, OPEN_FILES),
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_MEMLOCK, 0),
            (resource.RLIMIT_MSGQUEUE, 0),
            (resource.RLIMIT_SIGPENDING, PENDING_SIGNALS),
        ):
            resource.setrlimit(limit, (most, most))
        # Required before Landlock and seccomp filters without root.
        kernel.drop_privileges()
        if "landlock" in self.layers:
            work = [self.work] if "namespaces" in self.layers else []
            kernel.restrict_files(self.readable, ["/dev/null", *work])
        # Last, because the filter forbids the system calls used above.
        if "seccomp" in self.layers:
            kernel.restrict_calls(threads=_send_listener(report))
        os.write(report.fileno(), _CONFINED)
        report.close()

    def supervise(self, pid: int, report: socket.socket) -> None:
        """Waits until the program ends or has to be killed, and sends how it ended."""
        ended = os.pidfd_open(pid)
        poll = select.poll()
        for source in (ended, self.channel.fileno(), report.fileno()):
            poll.register(source, select.POLLIN)
        confined, threads, waiting = False, None, True
        while waiting:
            # Serve the listener of threads until the program ends or the trusted side asks to kill it.
            for source, event in poll.poll():
                if source == report.fileno():
                    message, descriptors, _, _ = socket.recv_fds(report, 256, 1)
                    confined = confined or message == _CONFINED
                    if descriptors:
                        threads = Threads(descriptors[0])
                        poll.register(threads.listener, select.POLLIN)
                    if not message:
                        poll.unregister(report)
                elif threads is not None and source == threads.listener:
                    if event & select.POLLIN:
                        threads.answer()
                    else:  # no thread is left that could send a notification
                        poll.unregister(source)
                else:
                    waiting = False
                    if source != ended:  # a kill message, or the trusted side is gone
                        os.kill(pid, signal.SIGKILL)
        if threads is not None:
            threads.close()
        os.close(ended)
        # A fast program may have ended before its report was read.
        while not confined and select.select([report], [], [], 0)[0]:
            message, descriptors, _, _ = socket.recv_fds(report, 256, 1)
            confined = message == _CONFINED
            for descriptor in descriptors:
                os.close(descriptor)
            if not message:
                break
        status, usage = self.reap(pid)
        cpu, memory = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
        answer = {"ended": status, "confined": confined, "cpu": cpu, "memory": memory}
        self.channel.send(json.dumps(answer).encode())

    def reap(self, pid: int) -> tuple[int, resource.struct_rusage]:
        """Kills whatever the program started. Returns its exit code (negative: a signal) and resource usage."""
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


def _send_listener(report: socket.socket) -> bool:
    """Sends the listener that counts threads. False where the kernel offers none: the program gets no threads then."""
    try:
        listener = kernel.listen_to_threads()
    except OSError as error:
        report.send(_NO_THREADS + str(error).encode())
        return False
    socket.send_fds(report, [_THREADS], [listener])
    os.close(listener)
    return True


def _children() -> list[int]:
    """The children of this process; after a program has ended, whatever it left running."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(word) for word in file.read().split()]


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def _read_all(descriptor: int) -> bytes:
    with os.fdopen(descriptor, "rb", closefd=False) as file:
        return file.read()
