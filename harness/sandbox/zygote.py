"""The process inside the wall that forks one child per program.

It is started once for many programs, because starting an interpreter costs more than most programs. It runs
no untrusted code and holds no secret: neither expected outputs nor an environment. Programs reach it as file
descriptors that only the child reads. After each program everything that it may have left is destroyed.

Messages, one packet each: ``run`` with two descriptors (job, result), and ``kill``; the answers are JSON objects.
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
FORK_TRIES, FORK_WAIT_S = 20, 0.2  # while others use up all the processes that there may be
_TOLD = 4  # descriptor on which a child says that it is shut in; closed before its program begins
_SHUT_IN, _THREADS, _NO_THREADS = b"shut in", b"threads", b"no threads: "


def main(control: int, layers: list[str], root: str, packages: str) -> None:
    """Close the walls of ``layers``, say how it went, then serve until the other end closes ``control``.

    ``root`` is the folder that holds this package; ``packages`` the one that holds NumPy.
    """
    sys.path.remove(root)
    channel = socket.socket(fileno=control)
    interpreter.load_modules()
    try:
        _offer_to_the_killer()
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


def _offer_to_the_killer() -> None:
    """Where memory runs out, the kernel is to end what is largest in here, and nothing that is out there."""
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
        gc.collect()
        gc.freeze()

    def rehearse(self) -> str:
        """Shut in a child that does nothing. Raises OSError when a layer is refused; returns what to note."""
        reader, writer = os.pipe()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = self.fork()
        if pid == 0:
            try:
                self.shut_in(10, theirs)
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
                continue  # a kill for a program that has just ended
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
        """Raises OSError when there can be no more processes, for a while."""
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

    def child(self, job: int, result: int, told: socket.socket) -> None:
        code = 1
        try:
            task: dict[str, Any] = json.loads(_read_all(job))
            moved = fcntl.fcntl(told.detach(), fcntl.F_DUPFD, 16)  # out of the way of the numbers taken next
            os.dup2(result, 3)
            os.dup2(moved, _TOLD)
            os.closerange(_TOLD + 1, 2**20)
            # Said before anything of the program runs: whatever its process ends with is its own then.
            self.shut_in(task["cpu_seconds"], socket.socket(fileno=_TOLD))
            code = 0
            program.run(task, 3)
        finally:
            os._exit(code)

    def shut_in(self, cpu_seconds: int, told: socket.socket) -> None:
        """What every program meets, in this order: each step leaves the process unable to undo it.

        ``told`` hears of it and is closed: first how threads are counted, with the listener, then that all is done.
        """
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
        kernel.drop_privileges()
        if "landlock" in self.layers:
            work = [self.work] if "namespaces" in self.layers else []
            kernel.restrict_files(self.readable, ["/dev/null", *work])
        if "seccomp" in self.layers:
            kernel.restrict_calls(threads=_send_listener(told))
        os.write(told.fileno(), _SHUT_IN)
        told.close()

    def supervise(self, pid: int, told: socket.socket) -> None:
        """Wait until the program ends or is to be ended; tell how it ended."""
        ended = os.pidfd_open(pid)
        poll = select.poll()
        for source in (ended, self.channel.fileno(), told.fileno()):
            poll.register(source, select.POLLIN)
        shut_in, threads, waiting = False, None, True
        while waiting:
            for source, event in poll.poll():
                if source == told.fileno():
                    message, descriptors, _, _ = socket.recv_fds(told, 256, 1)
                    shut_in = shut_in or message == _SHUT_IN
                    if descriptors:
                        threads = Threads(descriptors[0])
                        poll.register(threads.listener, select.POLLIN)
                    if not message:
                        poll.unregister(told)
                elif threads is not None and source == threads.listener:
                    if event & select.POLLIN:
                        threads.answer()
                    else:  # nobody is left who could ask; to wait for a question would be to wait for ever
                        poll.unregister(source)
                else:
                    waiting = False
                    if source != ended:  # kill, or nobody is there any more
                        os.kill(pid, signal.SIGKILL)
        if threads is not None:
            threads.close()
        os.close(ended)
        # A quick program has ended before all that was told is read.
        while not shut_in and select.select([told], [], [], 0)[0]:
            message, descriptors, _, _ = socket.recv_fds(told, 256, 1)
            shut_in = message == _SHUT_IN
            for descriptor in descriptors:
                os.close(descriptor)
            if not message:
                break
        status, usage = self.reap(pid)
        cpu, memory = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
        answer = {"ended": status, "shut in": shut_in, "cpu": cpu, "memory": memory}
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


def _send_listener(told: socket.socket) -> bool:
    """Have the threads of this process counted. False: that cannot be had here, and there must be no threads."""
    try:
        listener = kernel.listen_to_threads()
    except OSError as error:
        told.send(_NO_THREADS + str(error).encode())
        return False
    socket.send_fds(told, [_THREADS], [listener])
    os.close(listener)
    return True


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
