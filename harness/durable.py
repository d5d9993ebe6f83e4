"""Files that survive a crash: written as a whole or not at all, and caches that grow line by line."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from harness import safe_read
from harness.errors import BadInput, RunFailed


def write(path: Path, content: bytes) -> None:
    """Replaces a file atomically: a reader, or a crash, sees the whole new file or the old one.

    An existing file keeps its permissions; of a symbolic link the target is replaced. Raises OSError.
    """
    path = Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, because a rename is atomic only within one file system. One name for all processes, so that
    # the leftover of a killed one is overwritten.
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
        file.close()  # the other process renamed the file away while this one waited


# An append-only cache file for expensive results, such as answers of a paid judge or generated text.
#
# A line is stored when :meth:`CacheFile.add` returns. Reading skips lines torn by a crash, with a warning.
# Threads may share an object, and processes may share its file.

Answer = TypeVar("Answer")
LONGEST_LINE = 64 * safe_read.MB  # bytes; what follows a longer one is not read


def digest(content: Any) -> str:
    """The sha256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class CacheFile:
    """The file of one ``identity`` in ``folder``. Raises BadInput where it cannot be written."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]):
        self.path = folder / f"{digest(identity)[:16]}.jsonl"
        self._folder, self._lock = folder, threading.Lock()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # A link would lead to another file, and a pipe would block. Unbuffered: each write is one append, which
            # other processes cannot interleave.
            safe = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | safe, 0o666)
            self._file = os.fdopen(descriptor, "a+b", buffering=0)
            weakref.finalize(self, self._file.close)
            regular = stat.S_ISREG(os.fstat(self._file.fileno()).st_mode)
        except OSError as error:
            if not self.path.is_symlink():
                raise BadInput(f"cannot write the cache in {folder}: {error.strerror}") from None
            regular = False
        if not regular:
            raise BadInput(f"{self.path} is a link or not a regular file; delete it, its content is computed again")

    def read(self, parse: Callable[[dict[str, Any]], Answer | None]) -> Iterator[tuple[str, Answer]]:
        """Key and content of every complete line, in file order; ``parse`` converts the fields (None: invalid).

        Torn, damaged and invalid lines are counted in one warning. Raises BadInput if the file cannot be read.
        """
        damaged = 0
        for line in self._lines():
            try:
                fields = safe_read.value(line, finite=False)
                key = fields.pop("key")
                answer = parse(fields) if isinstance(key, str) else None
            except (ValueError, AttributeError, KeyError, TypeError):
                answer = None
            if answer is None:
                damaged += 1
            else:
                yield key, answer
        if damaged:
            lines = "a damaged line is" if damaged == 1 else f"{damaged} damaged lines are"
            safe_read.warn([f"{self.path}: {lines} skipped; their content is computed again"])

    def _lines(self) -> Iterator[bytes]:
        """Every line that is not empty; of a line that is too long, only the first :data:`LONGEST_LINE` bytes."""
        try:
            last = b"\n"
            with self.path.open("rb") as file:
                while line := file.readline(LONGEST_LINE):
                    if line.strip():
                        yield line
                    last = line
                    if len(line) == LONGEST_LINE:
                        break
            if not last.endswith(b"\n"):
                self._file.write(b"\n")  # end a torn last line, so that the next entry starts on a line of its own
        except OSError as error:
            raise BadInput(f"cannot read the cache in {self._folder}: {error.strerror}") from None

    def add(self, facts: Mapping[str, Mapping[str, Any]], *, sync: bool = True) -> None:
        """Appends the fields of every key. Raises RunFailed when they cannot be written.

        Without ``sync`` they survive the end of this process but, until the next call with it, not that of the machine.
        """
        lines = "".join(json.dumps({"key": key, **fields}) + "\n" for key, fields in facts.items())
        with self._lock:
            try:
                self._file.write(lines.encode())
                if sync:
                    os.fsync(self._file.fileno())
            except OSError as error:
                raise RunFailed(
                    f"cannot write to the cache in {self._folder}: {error.strerror}; earlier entries are kept"
                ) from None
