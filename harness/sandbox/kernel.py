"""Isolation by the Linux kernel, through direct system calls. Each function raises OSError if the kernel refuses.

Called only by the process that is to be confined. Sources: the man pages user_namespaces(7),
mount_namespaces(7), pivot_root(2), landlock(7), seccomp(2), capabilities(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import signal
import struct
from collections.abc import Iterator, Sequence

from harness.sandbox import seccomp

_libc = ctypes.CDLL(None, use_errno=True)

_CLONE = {"mnt": 0x20000, "cgroup": 0x2000000, "uts": 0x4000000, "ipc": 0x8000000, "user": 0x10000000}
_CLONE |= {"pid": 0x20000000, "net": 0x40000000}
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_DETACH = 2
_SET_PDEATHSIG, _SET_DUMPABLE, _SET_SECCOMP, _SET_NO_NEW_PRIVS, _SET_SUBREAPER = 1, 4, 22, 38, 36
_PIVOT_ROOT, _CAPSET = {"x86_64": (155, 126), "aarch64": (41, 91)}.get(platform.machine(), (-1, -1))
_SECCOMP = {"x86_64": 317, "aarch64": 277}.get(platform.machine(), -1)
_NEW_LISTENER, _WAIT_KILLABLE = 8, 32
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_FILE_RIGHTS = _READ_FILE | 1 << 1  # read and write; the other rights apply to folders
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}  # Landlock ABI -> number of access rights; 16 from ABI 5 on
NOBODY = 65534


def _call(name: str, *arguments: object) -> int:
    result = getattr(_libc, name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def _system_call(name: str, number: int, *arguments: object) -> int:
    result = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def _prctl(option: int, *values: int) -> None:
    # prctl takes four further arguments; unused ones must be 0.
    padded = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    _call("prctl", option, *padded)


def unshare_all() -> None:
    """Enters new namespaces of every kind, as user nobody; the next fork is process 1 of the PID namespace."""
    user, group = os.geteuid(), os.getegid()
    _call("unshare", sum(_CLONE.values()))
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{NOBODY} {user} 1"),
        ("gid_map", f"{NOBODY} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def new_root(directories: Sequence[str], hidden: Sequence[str]) -> None:
    """Replaces the root by an empty one with ``directories`` mounted read-only, and ``/dev/null``.

    ``hidden`` folders below ``directories`` appear empty, except for entries that are themselves in ``directories``.
    Requires :func:`unshare_all` before.
    """
    _mount(None, "/", None, _REC | _PRIVATE)
    # Open the sources first: the new root may be mounted over them.
    sources = {path: os.open(path, os.O_PATH) for path in (*directories, "/dev/null")}
    root = "/tmp"
    _mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, "size=1m,nr_inodes=4096,mode=755")
    os.makedirs(root + "/dev")
    os.close(os.open(root + "/dev/null", os.O_CREAT | os.O_WRONLY))
    for path in sorted((*sources, *hidden)):  # a folder before its entries
        if path in hidden:
            _mount("tmpfs", root + path, "tmpfs", _NOSUID | _NODEV, "size=64k,nr_inodes=16")
            continue
        if path != "/dev/null":
            os.makedirs(root + path, exist_ok=True)
        # A remount must keep the flag noexec of the source, or the kernel refuses it.
        locked = os.fstatvfs(sources[path]).f_flag & _NOEXEC
        _mount(f"/proc/self/fd/{sources[path]}", root + path, None, _BIND)
        if path != "/dev/null":
            _mount(None, root + path, None, _BIND | _REMOUNT | _RDONLY | _NOSUID | _NODEV | locked)
        os.close(sources[path])
    os.makedirs(root + work_directory(directories), exist_ok=True)
    os.chdir(root)
    _system_call("pivot_root", _PIVOT_ROOT, b".", b".")
    _call("umount2", b".", _DETACH)
    os.chdir("/")
    for path in ("/", *hidden):
        _mount(None, path, None, _BIND | _REMOUNT | _RDONLY | _NOSUID | _NODEV)


def work_directory(directories: Sequence[str]) -> str:
    """``/tmp``, or ``/var/tmp`` if one of the mounted ``directories`` is below ``/tmp`` and would be covered."""
    return "/var/tmp" if any(path.startswith("/tmp/") for path in directories) else "/tmp"


def fresh_work_directory(path: str, used: bool) -> None:
    """Mounts an empty file system of limited size at ``path``; unmounts the previous one if ``used``."""
    os.chdir("/")
    if used:
        _call("umount2", path.encode(), _DETACH)
    _mount("tmpfs", path, "tmpfs", _NOSUID | _NODEV | _NOEXEC, "size=16m,nr_inodes=1024,mode=1777")
    os.chdir(path)


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [None if word is None else word.encode() for word in (source, target, kind, data)]
    _call("mount", encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])


def die_with_parent() -> None:
    """Makes the kernel kill this process when the thread that forked it ends."""
    _prctl(_SET_PDEATHSIG, signal.SIGKILL)


def adopt_orphans() -> None:
    """Makes this process the parent of descendants whose own parent ends."""
    _prctl(_SET_SUBREAPER, 1)


def drop_privileges() -> None:
    """Drops all capabilities for good and keeps sibling processes from reading this one."""
    _prctl(_SET_NO_NEW_PRIVS, 1)
    header = struct.pack("=Ii", 0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3
    _system_call("capset", _CAPSET, header, bytes(24))
    _prctl(_SET_DUMPABLE, 0)


def landlock_version() -> int:
    """The version of Landlock's ABI. Raises OSError where the kernel lacks Landlock or has it disabled."""
    return _system_call("landlock", _CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(1))


def restrict_files(readable: Sequence[str], writable: Sequence[str]) -> None:
    """Restricts this process to these files and folders with their contents; ``writable`` may also be changed."""
    # All access rights that this version of Landlock handles.
    every = (1 << _RIGHTS.get(landlock_version(), 16)) - 1
    attributes = struct.pack("=Q", every)
    ruleset = _system_call("landlock", _CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    for paths, rights in ((readable, _READ_FILE | _READ_DIR), (writable, every)):
        for path in paths:
            parent = os.open(path, os.O_PATH)
            rule = struct.pack("=Qi", rights if os.path.isdir(path) else rights & _FILE_RIGHTS, parent)
            _system_call("landlock", _ADD_RULE, ruleset, ctypes.c_int(1), rule, ctypes.c_uint(0))
            os.close(parent)
    _system_call("landlock", _RESTRICT_SELF, ruleset, ctypes.c_uint(0))
    os.close(ruleset)


def restrict_calls(threads: bool) -> None:
    """Restricts this process to the system calls of :mod:`harness.sandbox.seccomp`.

    Requires :func:`drop_privileges` before.
    """
    with _filter(seccomp.program(threads)) as address:
        _prctl(_SET_SECCOMP, 2, address)


def listen_to_threads() -> int:
    """A descriptor that receives a notification before a thread starts or ends in this process.

    Requires :func:`drop_privileges` before. Raises OSError on kernels before 5.5, and where an outer sandbox already
    has such a listener. Source: seccomp_unotify(2).
    """
    with _filter(seccomp.thread_counter()) as address:
        for flags in (_NEW_LISTENER | _WAIT_KILLABLE, _NEW_LISTENER):  # kernels before 5.19 accept only the second
            try:
                return _system_call(
                    "seccomp", _SECCOMP, ctypes.c_uint(1), ctypes.c_ulong(flags), ctypes.c_void_p(address)
                )
            except OSError as error:
                if error.errno != errno.EINVAL or flags == _NEW_LISTENER:
                    raise
    raise AssertionError("the loop returns or raises")


@contextlib.contextmanager
def _filter(code: bytes) -> Iterator[int]:
    """The address of a ``struct sock_fprog`` for ``code``."""
    buffer = ctypes.create_string_buffer(code, len(code))
    array = ctypes.create_string_buffer(struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer)))
    yield ctypes.addressof(array)
