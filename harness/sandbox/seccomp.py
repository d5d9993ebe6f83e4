"""The system calls that an untrusted program may make; every other call fails with EPERM.

This is an allow list, because no list of dangerous calls is complete. It holds what a pure computation needs: files
(restricted further by Landlock and the mount namespace), memory, time, threads. It leaves out processes, execution of
other programs, sockets, signals to other processes, tracing, mounts, keys, namespaces, io_uring and bpf.

It also leaves out calls that hold a thread in the kernel where only SIGKILL reaches it (``membarrier``, ``vfork`` and
similar clone flags), and calls that act on files and pages shared with other processes (``flock``, ``fadvise64``,
``copy_file_range``, priority-inheriting futexes, huge pages). ``fsync`` returns 0 without writing anything.
"""

from __future__ import annotations

import errno
import os
import platform
import struct
from collections.abc import Sequence

# name: (number on x86_64, number on aarch64); None where the architecture has no such call
_ALLOWED = {
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "pwrite64": (18, 68), "lseek": (8, 62), "close": (3, 57), "close_range": (436, 436), "open": (2, None),
    "openat": (257, 56), "stat": (4, None), "lstat": (6, None), "fstat": (5, 80), "newfstatat": (262, 79),
    "statx": (332, 291), "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439),
    "readlink": (89, None), "readlinkat": (267, 78), "getdents": (78, None), "getdents64": (217, 61),
    "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50), "rename": (82, None), "renameat": (264, 38),
    "renameat2": (316, 276), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None),
    "unlink": (87, None), "unlinkat": (263, 35), "umask": (95, 166), "ftruncate": (77, 46),
    "dup": (32, 23),
    "dup2": (33, None), "dup3": (292, 24), "pipe": (22, None), "pipe2": (293, 59),
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72),
    "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, None), "epoll_pwait": (281, 22),
    "eventfd2": (290, 19), "sendfile": (40, 71), "statfs": (137, 43),
    "fstatfs": (138, 44), "munmap": (11, 215), "mremap": (25, 216), "mprotect": (10, 226),
    "brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136), "rt_sigtimedwait": (128, 137),
    "sigaltstack": (131, 132), "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173),
    "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "getgroups": (115, 158), "getpgrp": (111, None), "getpgid": (121, 155), "getsid": (124, 156),
    "uname": (63, 160), "sysinfo": (99, 179), "times": (100, 153), "getrusage": (98, 165),
    "getrlimit": (97, 163), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "gettimeofday": (96, 169), "time": (201, None), "clock_nanosleep": (230, 115), "nanosleep": (35, 101),
    "getitimer": (36, 102), "setitimer": (38, 103), "alarm": (37, None), "pause": (34, None),
    "sched_yield": (24, 124), "sched_getaffinity": (204, 123),
    "set_robust_list": (273, 99), "set_tid_address": (218, 96),
    "rseq": (334, 293), "arch_prctl": (158, None), "restart_syscall": (219, 128),
    "exit": (60, 93), "exit_group": (231, 94), "wait4": (61, 260), "waitid": (247, 95),
    "getrandom": (318, 278),
}  # fmt: skip
# These return success and do nothing: programs call them on their own files, and must not wait for a disk.
_NO_OPS = {"fsync": (74, 82), "fdatasync": (75, 83)}
# Allowed with some arguments only, see program().
_CLONE, _CLONE3, _KILL, _TGKILL = (56, 220), (435, 435), (62, 129), (234, 131)
_IOCTL, _FCNTL, _PRLIMIT, _EXIT = (16, 29), (72, 25), (302, 261), (60, 93)
_MMAP, _MADVISE, _FUTEX = (9, 222), (28, 233), (202, 98)

# The exact clone flags of pthread_create; musl adds CLONE_DETACHED. CLONE_VFORK would block the caller in the kernel.
_THREAD, _DETACHED = 0x3D0F00, 0x400000
_MAP_LOCKED_OR_HUGETLB = 0x2000 | 0x40000
# NORMAL to SEQUENTIAL, DONTNEED, FREE, HUGEPAGE to DODUMP, WIPEONFORK, KEEPONFORK, GUARD_INSTALL, GUARD_REMOVE
_ADVICE = (0, 1, 2, 4, 8, 14, 15, 16, 17, 18, 19, 102, 103)
# WAIT, WAKE, REQUEUE, CMP_REQUEUE, WAKE_OP, WAIT_BITSET, WAKE_BITSET; with PRIVATE and CLOCK_REALTIME or without
_FUTEXES, _FUTEX_FLAGS = (0, 1, 3, 4, 5, 9, 10), 0x180
_IOCTLS = (0x5401, 0x541B, 0x5450, 0x5451)  # TCGETS, FIONREAD, FIONCLEX, FIOCLEX
_FCNTLS = (0, 1, 2, 3, 4, 1030)  # F_DUPFD to F_SETFL, F_DUPFD_CLOEXEC; F_SETOWN would signal other processes
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32 = 0x40000000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _AND, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x54, 0x06
_ALLOW, _NOTIFY, _ERRNO = 0x7FFF0000, 0x7FC00000, 0x00050000
_NUMBER, _MACHINE, _ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data (little endian: low words first)
_DENY, _PASS = [_RETURN, 0, 0, _ERRNO | errno.EPERM], [_RETURN, 0, 0, _ALLOW]


def _machine() -> tuple[int, int]:
    machine = platform.machine()
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no system call table for {machine}")
    return _MACHINES[machine]


def _packed(code: list[list[int]]) -> bytes:
    return b"".join(struct.pack("=HBBI", *line) for line in code)


def program(threads: bool) -> bytes:
    """The filter of the calling process, as an array of ``struct sock_filter``. ``threads``: it may start threads.

    Raises OSError on an architecture whose call numbers are not listed here.
    """
    column, audit = _machine()
    # Refuse calls of another architecture and of the x32 ABI, whose numbers mean other calls.
    code = [[_LOAD, 0, 0, _MACHINE], [_EQUAL, 1, 0, audit], _DENY, [_LOAD, 0, 0, _NUMBER]]
    code += [[_AT_LEAST, 0, 1, _X32], _DENY]

    def when(call: tuple[int | None, int | None], *body: list[int]) -> None:
        code.append([_EQUAL, 0, len(body), call[column]])
        code.extend(body)

    def when_one_of(call: tuple[int, int], argument: int, values: Sequence[int], ignored: int = 0) -> None:
        """Allows ``call`` if the low word of its ``argument``, without the bits ``ignored``, is one of ``values``."""
        tests = [line for value in values for line in ([_EQUAL, 0, 1, value], _PASS)]
        mask = [[_AND, 0, 0, ~ignored & 0xFFFFFFFF]] if ignored else []
        when(call, [_LOAD, 0, 0, _ARGUMENT + 8 * argument], *mask, *tests, _DENY)

    for numbers in _ALLOWED.values():
        if numbers[column] is not None:
            when(numbers, _PASS)
    for numbers in _NO_OPS.values():
        when(numbers, [_RETURN, 0, 0, _ERRNO])
    # Threads, not processes. glibc tries clone3 first, whose flags are in memory that a filter cannot read;
    # ENOSYS makes it fall back to clone.
    when_one_of(_CLONE, 0, [_THREAD] if threads else [], ignored=_DETACHED)
    when(_CLONE3, [_RETURN, 0, 0, _ERRNO | errno.ENOSYS])
    # Signals to the process itself, which abort() sends, and its own resource limits.
    for call in (_KILL, _TGKILL):
        when_one_of(call, 0, [os.getpid()])
    when_one_of(_PRLIMIT, 0, [0])
    when_one_of(_IOCTL, 1, _IOCTLS)
    when_one_of(_FCNTL, 1, _FCNTLS)
    when_one_of(_FUTEX, 1, _FUTEXES, ignored=_FUTEX_FLAGS)
    when_one_of(_MADVISE, 2, _ADVICE)
    when(_MMAP, [_LOAD, 0, 0, _ARGUMENT + 24], [_ANY_BIT, 0, 1, _MAP_LOCKED_OR_HUGETLB], _DENY, _PASS)
    code.append(_DENY)
    return _packed(code)


def thread_counter() -> bytes:
    """A filter that notifies the listener before a thread starts or ends, and allows every other call."""
    column, audit = _machine()
    ask = [_RETURN, 0, 0, _NOTIFY]
    code = [[_LOAD, 0, 0, _MACHINE], [_EQUAL, 1, 0, audit], _PASS, [_LOAD, 0, 0, _NUMBER]]
    for call in (_CLONE, _EXIT):
        code += [[_EQUAL, 0, 1, call[column]], ask]
    return _packed([*code, _PASS])


def begins_thread(number: int) -> bool:
    """Whether a call reported by :func:`thread_counter` starts a thread; the other one ends the calling thread."""
    return number == _CLONE[_machine()[0]]
