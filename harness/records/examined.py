"""Remembers which files of a results folder were examined and found sound, so that large folders are read quickly.

    examined.json, among the folder's work files:
    {"form": …, "files": {"records/…/RUN.json": "INODE.SIZE.MODIFIED.CHANGED CHECKSUM", …}}

A file counts as examined only while its inode, size and times are unchanged. Only the kernel sets the
time of change, so a copied folder is examined again. Without this file, reading takes longer and
gives the same result.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from pathlib import Path

from harness import safe_read
from harness.durable import write
from harness.errors import BadInput

KEPT_FROM = 1000  # files; fewer are examined each time
LIMIT = 100 * safe_read.MB
SETTLED_S = 2.0  # seconds since the last change: a file system's clock may not distinguish two changes within one tick


class Examined:
    """The files below ``root`` that were examined before. ``form`` names the rules: under others every file is new."""

    def __init__(self, root: Path, form: str):
        self._root, self._form = str(root), form
        self._file = root / "work" / "examined.json"
        self._before = self._read()
        self._now: dict[str, str] = {}
        self._met: dict[str, str] = {}  # signatures from before a file was read

    def knows(self, path: str, checksum: str = "") -> bool:
        """Whether ``path`` is unchanged since :meth:`found_sound` with ``checksum``. Call this first."""
        self._met[path] = signature = _signature(path)
        name = path[len(self._root) :]
        if not signature or self._before.get(name) != f"{signature} {checksum}":
            return False
        self._now[name] = self._before[name]
        return True

    def found_sound(self, path: str, checksum: str = "") -> None:
        """Notes the file, with the signature that :meth:`knows` took before it was read."""
        if signature := self._met.get(path):
            self._now[path[len(self._root) :]] = f"{signature} {checksum}"

    def keep(self) -> None:
        """Saves the examined files, if there are enough and the folder is writable."""
        if len(self._now) < KEPT_FROM or self._now == self._before:
            return
        with contextlib.suppress(OSError):
            write(self._file, json.dumps({"form": self._form, "files": self._now}).encode("ascii"))

    def _read(self) -> dict[str, str]:
        try:
            kept = safe_read.value(safe_read.content(self._file, LIMIT, self._root))
        except BadInput:
            return {}
        files = kept.get("files") if isinstance(kept, dict) and kept.get("form") == self._form else None
        return files if isinstance(files, dict) else {}


def _signature(path: str) -> str:
    """A signature that every change of a regular file alters; "" for anything else, and for a file changed just now."""
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return ""
    if not stat.S_ISREG(status.st_mode) or abs(time.time() - status.st_ctime) < SETTLED_S:
        return ""
    return f"{status.st_ino}.{status.st_size}.{status.st_mtime_ns}.{status.st_ctime_ns}"
