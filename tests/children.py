"""Processes that begin as copies of another: what it has imported is there, and a start takes no seconds.

For tests of several processes, of killed ones and of their locks. A test of the start itself uses a new interpreter.
Processes that talk to each other are copies of one that has imported and done nothing else: in copies of a process that
had run for minutes, torch's native code ended with a damaged heap, twice in runs of the whole suite.
"""

import multiprocessing
import multiprocessing.process
import os
import sys
from collections.abc import Callable
from pathlib import Path


def forked(
    work: Callable[[], int | None], said: Path, *, how: str = "fork", **environment: str
) -> multiprocessing.process.BaseProcess:
    """Runs ``work`` in a copy of this process; its output goes to the files ``said`` and ``said`` + ``.err``.

    ``how="forkserver"``: in a copy of a process with the imports of a training, for which ``work`` is pickled.
    ``exitcode`` is what ``work`` returned (None is 0), 1 after an exception, or minus the signal that ended it.
    """
    context = multiprocessing.get_context(how)
    context.set_forkserver_preload(["harness.training.loop", "peft"])
    child = context.Process(target=_begin, args=(work, said, environment), daemon=True)
    child.start()
    return child


def finished(child: multiprocessing.process.BaseProcess, timeout: float = 300) -> int:
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
