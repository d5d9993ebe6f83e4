"""Checks of user code that the contracts share: misspelt attributes, unrecordable values, the state of the process.

Python ignores an attribute that only resembles a part of a contract. A record keeps plain JSON of bounded size;
both are checked before any work. A method or task must also leave the state of the process as it found it.
"""

from __future__ import annotations

import ast
import contextlib
import difflib
import functools
import inspect
import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import error_location
from harness.error_location import describe
from harness.errors import BadInput

CUTOFF = 0.85  # of difflib's ratio: one letter of seven


def refuse_misspelt(checked: type, contract: type, word: str, of_instances: tuple[str, ...]) -> None:
    """Raises BadInput for an attribute that nothing reads and that is one typo away from a part of ``contract``.

    ``of_instances`` are the names that the harness sets on every instance: a class attribute of that name is lost.
    """
    parts = {name for name in dir(contract) if not name.startswith("_")}
    lower = {part.lower(): part for part in parts}
    for cls in checked.__mro__:
        if cls is contract or cls.__module__.partition(".")[0] == "harness":
            continue
        used = None
        for name in [n for n in vars(cls) if not n.startswith("_") and n not in parts]:
            near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=CUTOFF)
            lost = name in of_instances and not isinstance(vars(cls)[name], property)
            if not near or (name in of_instances and not lost):
                continue
            used = read_names(cls) if used is None else used
            if lost or name not in used:
                raise BadInput(
                    f"{error_location.of(cls, name)}: {name} is not part of a {word}, and nothing reads it; did you "
                    f"mean {lower[near[0]]}? (name your own helper _{name})"
                )


def read_names(cls: type) -> set[str]:
    """The names and attributes that the file of a class reads."""
    try:
        tree = ast.parse(Path(inspect.getfile(cls)).read_text("utf-8"))
    except (TypeError, OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    loads = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute | ast.Name) and isinstance(n.ctx, ast.Load)]
    return {n.attr if isinstance(n, ast.Attribute) else n.id for n in loads}


LONGEST = 100_000  # characters of one value; a record is read up to 4 MB
_DEEPEST = 16


def unrecordable(value: Any) -> str:
    """Why a record cannot keep ``value``; empty where it can."""
    try:
        fault = _why_not(value, _DEEPEST)
        if not fault and len(json.dumps(value)) > LONGEST:
            return f"takes more than {LONGEST:,} characters"
    except (ValueError, TypeError, RecursionError, OverflowError) as error:  # digits without end, a key of another type
        return f"cannot be written as JSON ({str(error)[:80]})"
    return fault


def _why_not(value: Any, deeper: int) -> str:
    if value is None or isinstance(value, bool | int | str):
        return ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"holds {value}, which is not a finite number"
    if not deeper:
        return "is nested too deep"
    if isinstance(value, list | tuple):
        return next(filter(None, (_why_not(item, deeper - 1) for item in value)), "")
    if isinstance(value, Mapping):
        odd = [key for key in value if not isinstance(key, str)]
        if odd:
            return f"has the key {odd[0]!r:.40}; keys are text"
        return next(filter(None, (_why_not(item, deeper - 1) for item in value.values())), "")
    return f"holds {describe(value)}; numbers, True, False, None, text, and lists and dicts of them can be recorded"


# The state of the process, which user code must leave unchanged, because other methods and tasks share it.
#
# A file by path shares its process with every other method of a command. One that sets torch's default dtype, turns
# gradients off, moves to another folder or closes a stream changes their numbers, or stops them.


@dataclass(frozen=True)
class _GlobalState:
    """One state: what it is called, how it is read and put back, the calls that change it, and what to do instead."""

    name: str
    read: Callable[[], Any]
    restore: Callable[[Any], Any]
    calls: tuple[str, ...]
    fix: str
    torch: bool = False
    fresh: Callable[[], Any] = lambda: None  # its value right after torch is imported

    def here(self) -> bool:
        """Whether the state exists: torch's do once something has imported it."""
        return not self.torch or "torch" in sys.modules

    def now(self) -> Any:
        """The state; None if it cannot be read, such as a deleted working directory."""
        try:
            return self.read()
        except OSError:
            return None


def _torch() -> Any:
    return sys.modules["torch"]


_STATES = (
    _GlobalState(
        "torch's default dtype",
        lambda: _torch().get_default_dtype(),
        lambda before: _torch().set_default_dtype(before),
        ("set_default_dtype", "set_default_tensor_type"),
        "give each tensor its dtype",
        torch=True,
        fresh=lambda: _torch().float32,
    ),
    _GlobalState(
        "torch's default device",
        lambda: _torch().get_default_device(),
        lambda before: _torch().set_default_device(before if before.type != "cpu" else None),
        ("set_default_device", "set_default_tensor_type"),
        "give each tensor its device: device=tokens.logits.device",
        torch=True,
        fresh=lambda: _torch().device("cpu"),
    ),
    _GlobalState(
        "whether torch records gradients",
        lambda: _torch().is_grad_enabled(),
        lambda before: _torch().set_grad_enabled(before),
        ("set_grad_enabled",),
        "use with torch.no_grad(): around the lines that take none",
        torch=True,
        fresh=lambda: True,
    ),
    _GlobalState(
        "the number of torch's threads",
        lambda: _torch().get_num_threads(),
        lambda before: _torch().set_num_threads(before),
        ("set_num_threads",),
        "set OMP_NUM_THREADS for the command",
        torch=True,
    ),
    _GlobalState(
        "whether torch is deterministic",
        lambda: _torch().are_deterministic_algorithms_enabled(),
        lambda before: _torch().use_deterministic_algorithms(before),
        ("use_deterministic_algorithms",),
        "leave it out",
        torch=True,
        fresh=lambda: False,
    ),
    _GlobalState(
        "the working directory",
        os.getcwd,
        os.chdir,
        ("chdir", "fchdir"),
        "open files next to this one by Path(__file__).parent",
    ),
    _GlobalState(
        "the HARNESS_ variables of the environment",
        lambda: _variables(),
        lambda before: _put_back(before),
        ("environ", "putenv", "setdefault", "unsetenv"),
        "set them for the command",
    ),
    _GlobalState(
        "the process's timer",
        lambda: signal.getitimer(signal.ITIMER_REAL)[0] > 0,
        lambda before: None if before else signal.setitimer(signal.ITIMER_REAL, 0),
        ("alarm", "setitimer"),
        "leave it out; it would end the command",
    ),
    _GlobalState(
        "sys.stdout or sys.stderr",
        lambda: (_is_open(sys.stdout), _is_open(sys.stderr)),
        lambda before: _reopen_streams(),
        ("close", "stdout", "stderr"),
        "print to them, and leave them open",
    ),
)


class ProcessState:
    """The current states; :meth:`changed` reports which of them user code changed."""

    def __init__(self) -> None:
        self.limit = sys.getrecursionlimit()
        self.before = {state.name: state.now() for state in _STATES if state.here()}

    def changed(self) -> tuple[str, tuple[str, ...]] | None:
        """Restores changed states. Returns the first one, with its fix and the calls that cause it, or None."""
        # The recursion limit comes first: under one that is too low no other state could be read.
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(self.limit)
        change = None
        if limit != self.limit:
            change = "changes the recursion limit, for everything else too; leave it out", ("setrecursionlimit",)
        for state in filter(_GlobalState.here, _STATES):
            # If the code imported torch itself, it started from torch's own values.
            before = self.before[state.name] if state.name in self.before else state.fresh()
            if before is not None and state.now() != before:
                state.restore(before)
                change = change or (f"changes {state.name}, for everything else too; {state.fix}", state.calls)
        return change


def place_of(files: Iterable[Path], calls: Iterable[str]) -> str:
    """FILE:LINE of the first call of one of ``calls`` in the files; the first file where there is none."""
    files, names = list(files), set(calls)
    for file in files:
        try:
            tree = ast.parse(file.read_bytes())
        except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
            continue
        lines = [n.lineno for n in ast.walk(tree) if {getattr(n, "attr", None), getattr(n, "id", None)} & names]
        if lines:
            return f"{error_location.shown(file)}:{min(lines)}"
    return error_location.shown(files[0])


def _variables() -> dict[bytes, bytes]:
    """The HARNESS_ variables. As bytes: to decode every other variable would take most of the time of a check."""
    return {name: os.environb[name] for name in os.environb if name.startswith(b"HARNESS_")}


def _put_back(before: dict[bytes, bytes]) -> None:
    """Restores the HARNESS_ variables; new ones are removed."""
    for name in _variables().keys() - before.keys():
        del os.environb[name]
    os.environb.update(before)


def _is_open(stream: Any) -> bool:
    return stream is not None and not getattr(stream, "closed", False)


def _reopen_streams() -> None:
    """Opens new streams on the descriptors 1 and 2 in place of closed ones."""
    for name, number in (("stdout", 1), ("stderr", 2)):
        if not _is_open(getattr(sys, name)):
            # While a command works, sys.stdout leads to stderr, so that what is printed does not mix with results.
            setattr(sys, name, os.fdopen(2 if name == "stdout" else number, "w", buffering=1, closefd=False))


# Calls that would end the command silently are refused to user code: ``os._exit``, ``os.abort``, ``os.execv``.
#
# They end or replace the process at once, past every ``except`` and ``finally``: neither a record nor a message is
# written. Called from a user's method, task or plugin they raise :class:`Ended` instead, which becomes one line with
# FILE:LINE as ``sys.exit`` does. Child processes that user code starts may end as they like, and so may the harness.

_importing = 0  # imports of plugins in progress; their files are not registered yet


class Ended(SystemExit):
    """User code called ``call``, which would have ended the process."""

    def __init__(self, call: str):
        super().__init__(call)
        self.call = call


@functools.cache
def refuse_ends() -> None:
    """Puts the refusing functions in place of Python's, once for this process."""
    process = os.getpid()
    for module, name in ((os, "_exit"), (os, "abort"), (os, "execv"), (os, "execve"), (signal, "raise_signal")):
        _replace(process, module, name, lambda *_: True)
    # A signal to this process, or to its whole group.
    _replace(process, os, "kill", lambda pid, *_: pid in (process, 0, -1))
    _replace(process, os, "killpg", lambda group, *_: group in (os.getpgrp(), 0))


@contextlib.contextmanager
def importing_plugin() -> Iterator[None]:
    """While a plugin is imported, every call counts as a call of the plugin."""
    global _importing
    refuse_ends()
    _importing += 1
    try:
        yield
    finally:
        _importing -= 1


def _replace(process: int, module: Any, name: str, ends: Callable[..., bool]) -> None:
    real = getattr(module, name)

    @functools.wraps(real)
    def refusing(*arguments: Any, **named: Any) -> Any:
        if os.getpid() == process and ends(*arguments, *named.values()) and _called_by_user_code():
            raise Ended(f"{module.__name__}.{name}()")
        return real(*arguments, **named)

    setattr(module, name, refusing)


def _called_by_user_code() -> bool:
    """Whether user code is anywhere on the stack."""
    frame = sys._getframe(2)
    while frame is not None:
        if _importing or error_location.is_own(frame.f_code.co_filename):
            return True
        frame = frame.f_back
    return False
