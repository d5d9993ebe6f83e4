"""The list of system calls that an untrusted program may make; every other call answers EPERM.

It is a list of what is allowed, because nobody knows all that is dangerous. What a pure computation needs is
on it: files (Landlock and the mount namespace say which), memory, time, threads. What is not: processes,
execution of other programs, sockets, signals to others, tracing, mounts, keys, namespaces, io_uring, bpf.
"""

from __future__ import annotations

import errno
import os
import platform
import struct

# name: (x86_64, aarch64); None where the machine has no such call
_ALLOWED = {
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "pwrite64": (18, 68), "lseek": (8, 62), "close": (3, 57), "close_range": (436, 436), "open": (2, None),
    "openat": (257, 56), "stat": (4, None), "lstat": (6, None), "fstat": (5, 80), "newfstatat": (262, 79),
    "statx": (332, 291), "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439),
    "readlink": (89, None), "readlinkat": (267, 78), "getdents": (78, None), "getdents64": (217, 61),
    "getcwd": (79, 17), "chdir": (80, 49), "fchdir": (81, 50), "rename": (82, None), "renameat": (264, 38),
    "renameat2": (316, 276), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None),
    "unlink": (87, None), "unlinkat": (263, 35), "umask": (95, 166), "ftruncate": (77, 46),
    "fsync": (74, 82), "fdatasync": (75, 83), "fadvise64": (221, 223), "flock": (73, 32), "dup": (32, 23),
    "dup2": (33, None), "dup3": (292, 24), "pipe": (22, None), "pipe2": (293, 59),
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72),
    "epoll_create1": (291, 20), "epoll_ctl": (233, 21), "epoll_wait": (232, None), "epoll_pwait": (281, 22),
    "eventfd2": (290, 19), "copy_file_range": (326, 285), "sendfile": (40, 71), "statfs": (137, 43),
    "fstatfs": (138, 44), "mmap": (9, 222), "munmap": (11, 215), "mremap": (25, 216), "mprotect": (10, 226),
    "madvise": (28, 233), "brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136), "rt_sigtimedwait": (128, 137),
    "sigaltstack": (131, 132), "getpid": (39, 172), "gettid": (186, 178), "getppid": (110, 173),
    "getuid": (102, 174), "geteuid": (107, 175), "getgid": (104, 176), "getegid": (108, 177),
    "getgroups": (115, 158), "getpgrp": (111, None), "getpgid": (121, 155), "getsid": (124, 156),
    "uname": (63, 160), "sysinfo": (99, 179), "times": (100, 153), "getrusage": (98, 165),
    "getrlimit": (97, 163), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "gettimeofday": (96, 169), "time": (201, None), "clock_nanosleep": (230, 115), "nanosleep": (35, 101),
    "getitimer": (36, 102), "setitimer": (38, 103), "alarm": (37, None), "pause": (34, None),
    "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "futex": (202, 98),
    "set_robust_list": (273, 99), "get_robust_list": (274, 100), "set_tid_address": (218, 96),
    "rseq": (334, 293), "arch_prctl": (158, None), "membarrier": (324, 283), "restart_syscall": (219, 128),
    "exit": (60, 93), "exit_group": (231, 94), "wait4": (61, 260), "waitid": (247, 95),
    "getrandom": (318, 278),
}  # fmt: skip
# Allowed for some arguments only, see program().
_CLONE, _CLONE3, _KILL, _TGKILL = (56, 220), (435, 435), (62, 129), (234, 131)
_IOCTL, _FCNTL, _PRLIMIT = (16, 29), (72, 25), (302, 261)

_CLONE_THREAD = 0x10000
_IOCTLS = (0x5401, 0x541B, 0x5450, 0x5451)  # TCGETS, FIONREAD, FIONCLEX, FIOCLEX
_FCNTLS = (0, 1, 2, 3, 4, 1030)  # F_DUPFD to F_SETFL, F_DUPFD_CLOEXEC; F_SETOWN would signal other processes
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_X32 = 0x40000000

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _MACHINE, _ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data (little endian: low words first)


def program() -> bytes:
    """The filter for the calling process, as an array of ``struct sock_filter``.

    Raises OSError on a machine whose call numbers are not known here.
    """
    machine = platform.machine()
    if machine not in _MACHINES:
        raise OSError(errno.ENOSYS, f"no system call table for {machine}")
    column, audit = _MACHINES[machine]
    deny = [_RETURN, 0, 0, _ERRNO | errno.EPERM]
    allow = [_RETURN, 0, 0, _ALLOW]
    code = [[_LOAD, 0, 0, _MACHINE], [_EQUAL, 1, 0, audit], deny, [_LOAD, 0, 0, _NUMBER]]
    code += [[_AT_LEAST, 0, 1, _X32], deny]

    def when(number: int, *body: list[int]) -> None:
        code.append([_EQUAL, 0, len(body), number])
        code.extend(body)

    for numbers in _ALLOWED.values():
        if numbers[column] is not None:
            when(numbers[column], allow)
    # Threads, not processes; glibc asks clone3 first, whose flags lie in memory where no filter can look.
    when(_CLONE[column], [_LOAD, 0, 0, _ARGUMENT], [_ANY_BIT, 0, 1, _CLONE_THREAD], allow, deny)
    when(_CLONE3[column], [_RETURN, 0, 0, _ERRNO | errno.ENOSYS])
    # Signals to itself, as abort() sends one; its own limits.
    for call in (_KILL, _TGKILL):
        when(call[column], [_LOAD, 0, 0, _ARGUMENT], [_EQUAL, 0, 1, os.getpid()], allow, deny)
    when(_PRLIMIT[column], [_LOAD, 0, 0, _ARGUMENT], [_EQUAL, 0, 1, 0], allow, deny)
    for call, requests in ((_IOCTL, _IOCTLS), (_FCNTL, _FCNTLS)):
        tests = [line for request in requests for line in ([_EQUAL, 0, 1, request], allow)]
        when(call[column], [_LOAD, 0, 0, _ARGUMENT + 8], *tests, deny)
    code.append(deny)
    return b"".join(struct.pack("=HBBI", *line) for line in code)
