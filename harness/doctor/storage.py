"""Checks the results folder: write access, free space, locks and records."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from harness.doctor.finding import NOTE, OK, PROBLEM, Finding
from harness.errors import BadInput
from harness.records.store import Store

DISK_NOTE, DISK_PROBLEM = 20e9, 1e9  # free bytes: a 1.5 B student's checkpoint takes 18 GB, the micro world's 2 MB


def results(folder: Path) -> Iterator[Finding]:
    try:
        Store(folder).check_writable()
    except BadInput as error:
        yield Finding("results", PROBLEM, str(error), "choose another folder with --results or HARNESS_RESULTS")
        return
    yield Finding("results", OK, f"{folder} can be written")


def _existing(folder: Path) -> Path:
    return next(p for p in (folder, *folder.absolute().parents) if p.exists())


def disk(results: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(_existing(results)).free
    found = f"{free / 1e9:.1f} GB free at {results}"
    if free < DISK_PROBLEM:
        yield Finding("disk", PROBLEM, found, "free some space, or choose another folder with --results")
    elif free < DISK_NOTE:
        yield Finding(
            "disk", NOTE, found, "enough for the micro world; checkpoints of real models need 12 bytes a weight"
        )
    else:
        yield Finding("disk", OK, found)


def locks(results: Path) -> Iterator[Finding]:
    """Tries every lock. The kernel frees the lock of a process that died, so a leftover file means nothing."""
    from filelock import FileLock, Timeout

    locked, files = [], [*results.glob("work/**/*.lock"), *results.glob(".lock")]
    for file in files:
        lock = FileLock(file, timeout=0)
        try:
            with lock:
                pass
        except Timeout:
            locked.append(file.stem)
        except (OSError, NotImplementedError) as error:
            fix = "choose a results folder on a local disk or on a file system that supports flock"
            yield Finding("locks", PROBLEM, f"{file} cannot be locked ({error})", fix)
            return
    pending = sorted(results.glob("work/training/*/"))
    size = sum(p.stat().st_size for folder in pending for p in folder.rglob("*") if p.is_file())
    summary = f"{len(locked)} held by running work, {len(files) - len(locked)} free (files of ended runs are harmless)"
    if pending:
        fix = f"run their commands again to continue; delete {results / 'work/training'} to discard them"
        found = f"{summary}; {len(pending)} unfinished training{'s' * (len(pending) != 1)}, {size / 1e9:.2f} GB"
        yield Finding("locks", NOTE if len(locked) < len(pending) else OK, found, fix)
    else:
        yield Finding("locks", OK, summary)


def records(results: Path) -> Iterator[Finding]:
    sound, warnings = Store(results).all()
    damaged = [w for w in warnings if ": left out: " in w]
    if damaged:
        found = f"{len(sound)} sound, {len(damaged)} damaged: {damaged[0]}"
        yield Finding("records", NOTE, found, "restore the file from a copy, or run again with --again")
    else:
        yield Finding("records", OK, f"{len(sound)} sound")
    latest = max((datetime.fromisoformat(r["created"]) for r in sound), default=None)
    if latest is not None and latest > datetime.now(UTC) + timedelta(minutes=5):
        fix = "set the clock; records are ordered by attempt, not by time"
        yield Finding("clock", NOTE, f"a record was made in the future ({latest.isoformat()})", fix)
