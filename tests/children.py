"""Processes that begin as copies of this one: what it has imported is there, and a start takes no seconds.

For tests of several processes, of killed ones and of their locks. A test of the start itself uses a new interpreter.
"""

import multiprocessing
import os
import sys
from collections.abc import Callable
from pathlib import Path


def forked(work: Callable[[], int | None], said: Path, **environment: str) -> multiprocessing.Process:
    """Runs ``work`` in a copy of this process; its output goes to the files ``said`` and ``said`` + ``.err``.

    ``exitcode`` is what ``work`` returned (None is 0), 1 after an exception, or minus the signal that ended it.
    """
    child = multiprocessing.get_context("fork").Process(target=_begin, args=(work, said, environment), daemon=True)
    child.start()
    return child


def finished(child: multiprocessing.Process, timeout: float = 300) -> int:
    """The exit code, once there is one. Raises TimeoutError, and ends the child, after ``timeout`` seconds."""
    child.join(timeout)
    if child.exitcode is None:
        child.kill()
        raise TimeoutError(f"a child did not end within {timeout:g} s")
    return child.exitcode


def _begin(work, said: Path, environment: dict[str, str]) -> None:
    from accelerate.state import AcceleratorState

    os.environ.update(environment)
    # What this process was told of its own devices and ranks is not true of the child.
    AcceleratorState._reset_state(True)
    for number, name, file in ((1, "stdout", said), (2, "stderr", said.with_name(said.name + ".err"))):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
        os.close(descriptor)
        setattr(sys, name, os.fdopen(number, "w", buffering=1, encoding="utf-8", closefd=False))
    sys.exit(work())
