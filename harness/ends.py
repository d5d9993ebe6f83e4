"""Calls that would end the command without a word, refused to user code: ``os._exit``, ``os.abort``, ``os.execv``.

They end or replace the process at once, past every ``except`` and ``finally``: neither a record nor a message is
written. Called from a user's method, task or plugin they raise :class:`Ended` instead, which becomes one line with
FILE:LINE as ``sys.exit`` does. Child processes that user code starts may end as they like, and so may the harness.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

from harness import error_location

_importing = 0  # imports of plugins in progress; their files are not registered yet


class Ended(SystemExit):
    """User code called ``call``, which would have ended the process."""

    def __init__(self, call: str):
        super().__init__(call)
        self.call = call


@functools.cache
def refuse() -> None:
    """Puts the refusing functions in place of Python's, once for this process."""
    process = os.getpid()
    for module, name in ((os, "_exit"), (os, "abort"), (os, "execv"), (os, "execve"), (signal, "raise_signal")):
        _replace(process, module, name, lambda *_: True)
    # A signal to oneself, or to all of the group.
    _replace(process, os, "kill", lambda pid, *_: pid in (process, 0, -1))
    _replace(process, os, "killpg", lambda group, *_: group in (os.getpgrp(), 0))


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """While a plugin is imported every call counts as its own."""
    global _importing
    refuse()
    _importing += 1
    try:
        yield
    finally:
        _importing -= 1


def _replace(process: int, module: Any, name: str, ends: Callable[..., bool]) -> None:
    real = getattr(module, name)

    @functools.wraps(real)
    def refusing(*given: Any, **named: Any) -> Any:
        if os.getpid() == process and ends(*given, *named.values()) and _of_a_user():
            raise Ended(f"{module.__name__}.{name}()")
        return real(*given, **named)

    setattr(module, name, refusing)


def _of_a_user() -> bool:
    """Whether user code is anywhere on the stack."""
    frame = sys._getframe(2)
    while frame is not None:
        if _importing or error_location.is_own(frame.f_code.co_filename):
            return True
        frame = frame.f_back
    return False
