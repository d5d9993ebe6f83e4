"""Renders chat templates within bounds. A template is a program by the model's author, who may be anybody.

Jinja's sandbox protects files and attributes, but does not limit work: ``{{ 'x' * 10**10 }}``, a filter that pads to
a billion characters, nested loops. Each rendering has a limit of processor time, memory and length.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
import resource
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SECONDS = 10.0  # processor time of one rendering; an ordinary template takes milliseconds
ROOM_BYTES = 256 * 2**20  # address space that one rendering may add to the process
LONGEST = 4_000_000  # characters of a rendered exchange besides the text of its turns
MOST_BITS = 100_000  # of a number that a template computes
MOST_REPEATED = 10_000_000  # characters or members that a template may produce by repetition
_MEMORY = Path("/proc/self/statm")
_lock = threading.Lock()
_rendering: dict[int, float] = {}  # thread -> its processor time at which the rendering is stopped


class TemplateRefused(BadInput):
    """A chat template went beyond the bounds of a rendering."""


class _TooLong(BaseException):
    """Raised by the watch in a rendering thread; not an Exception, so that no library catches it."""


def render(tokenizer: PreTrainedTokenizerBase, turns: Sequence[dict[str, Any]], **how: Any) -> str:
    """The text of ``turns`` in the tokenizer's chat template.

    Raises TemplateRefused beyond a bound, and jinja's own errors, such as the template's ``raise_exception``.
    """
    _bound_the_sandbox()
    limits = _begin()
    try:
        try:
            text = tokenizer.apply_chat_template(list(turns), tokenize=False, **how)
        finally:
            _end(limits)
    except _TooLong:
        _end(limits)  # it may have struck in the first call; a second one never comes
        raise TemplateRefused(
            f"the template takes more than {SECONDS:g} s of processor time for one exchange"
        ) from None
    except MemoryError:
        raise TemplateRefused(
            f"the template needs more than {ROOM_BYTES >> 20} MiB of memory for one exchange"
        ) from None
    except RecursionError:
        raise TemplateRefused("the template is nested too deep, or calls itself without end") from None
    if len(text) > LONGEST + 4 * sum(len(str(turn)) for turn in turns):
        raise TemplateRefused(f"the template makes {len(text):,} characters of one exchange")
    return text


@functools.cache
def _bound_the_sandbox() -> None:
    """Makes transformers compile templates in a sandbox with bounded products and powers.

    The watch cannot interrupt one large product, and Jinja would compute one of constants on compiling.
    """
    from transformers.utils import chat_template_utils

    class Bounded(chat_template_utils.ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            _check_size(operator, left, right)
            return super().call_binop(context, operator, left, right)

    chat_template_utils.ImmutableSandboxedEnvironment = Bounded


def _check_size(operator: str, left: Any, right: Any) -> None:
    """Raises TemplateRefused for a product or power that is too large to compute."""
    if isinstance(left, int) and isinstance(right, int):
        bits = left.bit_length() * max(right, 0) if operator == "**" else left.bit_length() + right.bit_length()
        if bits > MOST_BITS:
            raise TemplateRefused(f"the template computes a number of {bits:,} bits")
    for many, times in ((left, right), (right, left)):
        if hasattr(many, "__len__") and isinstance(times, int) and len(many) * times > MOST_REPEATED:
            raise TemplateRefused(f"the template repeats something to {len(many) * times:,} characters or members")


def _begin() -> tuple[int, int] | None:
    """Bounds a rendering of this thread: its processor time, and the address space of the process for the moment.

    An allocation beyond raises MemoryError. Returns the limits of the address space to restore, if any were set.
    """
    thread = threading.get_ident()
    _start_watch(os.getpid())
    with _lock:
        first = not _rendering  # the limit of the first of several threads applies to all
        _rendering[thread] = _processor_time(thread) + SECONDS
        return _limited() if first else None


def _limited() -> tuple[int, int] | None:
    """Limits the address space; returns the limits before, or None if they were tighter or are not known."""
    try:
        used = int(_MEMORY.read_text("ascii").split()[0]) * resource.getpagesize()
    except OSError:  # not Linux: the length is still bounded
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    room = used + ROOM_BYTES
    if any(limit != resource.RLIM_INFINITY and limit <= room for limit in (soft, hard)):
        return None
    resource.setrlimit(resource.RLIMIT_AS, (room, hard))
    return soft, hard


def _end(limits: tuple[int, int] | None) -> None:
    """Ends what :func:`_begin` began; may be called twice."""
    thread = threading.get_ident()
    with _lock:
        _rendering.pop(thread, None)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None)  # an exception that came too late
        if limits is not None:
            resource.setrlimit(resource.RLIMIT_AS, limits)


def _processor_time(thread: int) -> float:
    return time.clock_gettime(time.pthread_getcpuclockid(thread))


@functools.cache
def _start_watch(process: int) -> None:
    """Starts the watching thread, once for each process."""
    threading.Thread(target=_watch, name="chat templates", daemon=True).start()


def _watch() -> None:
    while True:
        time.sleep(0.5)
        if not _rendering:  # take the lock only if needed: a fork would copy it
            continue
        with _lock:
            for thread, end in list(_rendering.items()):
                if _processor_time(thread) > end:
                    _rendering[thread] = math.inf  # once: a second one would strike while the first is handled
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(_TooLong))
