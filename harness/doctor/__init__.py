"""What this machine has and lacks for the harness, and the mend for each lack; looks only, changes nothing.

Every check yields findings: ``software``, ``machine``, ``storage`` and ``outside`` hold them by what they look at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from harness.doctor import machine, outside, software, storage
from harness.doctor.finding import NOTE, OK, PROBLEM, Finding

__all__ = ["NOTE", "OK", "PROBLEM", "Finding", "examine"]


def examine(results: Path) -> Iterator[Finding]:
    """Every check in turn. One that breaks is itself a problem, so that the others are still made."""
    looks: dict[str, Callable[[], Iterator[Finding]]] = {
        "python": software.python,
        "versions": software.versions,
        "torch": machine.torch,
        "memory": machine.memory,
        "sandbox": machine.sandbox,
        "results": partial(storage.results, results),
        "disk": partial(storage.disk, results),
        "locks": partial(storage.locks, results),
        "records": partial(storage.records, results),
        "hubs": outside.hubs,
        "data": outside.data,
        "extras": software.extras,
    }
    for name, look in looks.items():
        try:
            yield from look()
        except Exception as error:  # a doctor must not die of what ails the patient
            found = f"could not be checked ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            yield Finding(name, PROBLEM, found, "mend what the message names, then ask again")
