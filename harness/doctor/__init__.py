"""Checks what the harness needs on this machine and says how to fix what is missing. Changes nothing.

Every check yields findings. The modules group the checks: ``software``, ``machine``, ``storage`` and ``outside``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from harness.doctor import machine, outside, software, storage
from harness.doctor.finding import NOTE, OK, PROBLEM, Finding

__all__ = ["NOTE", "OK", "PROBLEM", "Finding", "examine"]


def examine(results: Path) -> Iterator[Finding]:
    """Runs every check in turn. A check that raises is reported as a problem, and the others still run."""
    checks: dict[str, Callable[[], Iterator[Finding]]] = {
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
    for name, check in checks.items():
        try:
            yield from check()
        except Exception as error:  # one broken check must not hide the results of the others
            found = f"could not be checked ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
            yield Finding(name, PROBLEM, found, "fix what the message names, then run harness doctor again")
