"""Whole files or none: what a user keeps is never half-written, whatever interrupts."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from pathlib import Path
from typing import BinaryIO


def write(path: Path, content: bytes) -> None:
    """Puts a whole file in place at once: a reader, or a power cut, sees all of it, or what was there before.

    A file that stands there keeps its permissions, and a link goes on leading to it. Raises OSError.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Beside the file, since a rename is one step only within one file system. One name for all processes, so that
    # what a killed one leaves there is written over.
    temporary = path.with_name(f".{path.name[:200]}.tmp")
    with _alone(temporary) as file:
        try:
            file.truncate(0)
            with contextlib.suppress(FileNotFoundError):
                os.fchmod(file.fileno(), stat.S_IMODE(os.stat(path).st_mode))
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def readable(folder: Path, ordinary: Path) -> None:
    """Gives every file below ``folder`` the permissions of ``ordinary``, a file written in the usual way.

    safetensors writes weights that only their owner can read, whatever the umask says.
    """
    mode = stat.S_IMODE(os.stat(ordinary).st_mode)
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(mode)


def _alone(path: Path) -> BinaryIO:
    """The file at ``path``, open and locked against other processes that write there."""
    while True:
        file = open(path, "ab")  # noqa: SIM115 (who asked closes it)
        fcntl.flock(file, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(file.fileno()).st_ino == os.stat(path).st_ino:
                return file
        file.close()  # while this process waited, the other one renamed the file away
