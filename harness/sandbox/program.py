"""Run one untrusted program: define it, call its entry point on every input, tell what came back.

This code shares its process with the program. Whatever it sends is therefore a claim of the program, to be
judged outside by somebody who knows what was expected; nothing here does.

Each line sent starts with its kind::

    =<cpu seconds> <value>    the value that the next input gave
    ?<text>                   it was no plain value: what it was
    !<text>                   the call raised
    #<text>                   the program could not be defined
    .                         all inputs were run

Texts are JSON strings. After ``?``, ``!`` and ``#`` nothing follows.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

from harness.sandbox import values


def run(job: dict[str, Any], result: int) -> None:
    """``job``: program, entry_point, inputs (texts of values), limits (CPU seconds each), define_limit."""
    # Bound before the program runs, so that one which replaces them by accident is still reported well.
    send, arm, cpu, loads, dumps = os.write, signal.setitimer, time.process_time, values.loads, values.dumps
    timer = signal.ITIMER_PROF  # CPU time of the process; its signal kills, so no except clause can stop it
    arm(timer, job["define_limit"])
    try:
        entry = _define(job["program"], job["entry_point"])
    except BaseException as error:
        return _tell(send, result, "#", _describe(error))
    for text, limit in zip(job["inputs"], job["limits"], strict=True):
        arguments = loads(text)
        arm(timer, limit)
        begin = cpu()
        try:
            value = entry(*arguments)
        except BaseException as error:
            return _tell(send, result, "!", _describe(error))
        try:
            text = dumps(value)  # counted too: it walks the value, and may run an iterator of the program
            line = f"={cpu() - begin:.6f} {text}\n"
        except values.NotPlain as error:
            return _tell(send, result, "?", str(error))
        except BaseException as error:
            return _tell(send, result, "?", f"a value that cannot be read ({_describe(error)})")
        _send(send, result, line)
        del value
    arm(timer, 0)
    _send(send, result, ".\n")


def _define(program: str, entry_point: str) -> Callable[..., Any]:
    namespace: dict[str, Any] = {}
    exec(compile(program, "<program>", "exec", dont_inherit=True), namespace)
    if entry_point not in namespace:
        raise NameError(f"name {entry_point!r} is not defined")
    return namespace[entry_point]


def _describe(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}".removesuffix(": ")
    except BaseException:
        return "an exception that cannot be shown"


def _tell(send: Callable[[int, bytes], int], result: int, kind: str, text: str) -> None:
    _send(send, result, f"{kind}{json.dumps(text[:300])}\n")


def _send(send: Callable[[int, bytes], int], result: int, line: str) -> None:
    data = memoryview(line.encode("ascii"))
    while data:
        data = data[send(result, data) :]
