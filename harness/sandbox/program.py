"""Runs one untrusted program: defines it, calls its entry point on every input, sends the results.

This code shares its process with the program, so nothing it sends can be trusted; expected outputs are known only on
the trusted side, which compares.

The first character of each line is its kind::

    =<cpu seconds> <value>    the value returned for the next input
    ?<text>                   the call returned no plain value, but this
    !<text>                   the call raised this exception
    #<text>                   the program could not be defined
    .                         all inputs were run

Texts are JSON strings. A line of kind ``?``, ``!`` or ``#`` is the last one.
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
    """Runs ``job``, the fields of a SandboxJob, and writes the lines to the descriptor ``result``."""
    # Bind these before the program runs: one that replaces them by accident is then still reported correctly.
    send, arm, cpu, loads, dumps = os.write, signal.setitimer, time.process_time, values.loads, values.dumps
    timer = signal.ITIMER_PROF  # CPU time of the process; the signal kills it and cannot be caught by an except clause
    arm(timer, job["define_limit"])
    try:
        entry = _define(job["program"], job["entry_point"])
    except BaseException as error:
        return _report(send, result, "#", _describe(error))
    for text, limit in zip(job["inputs"], job["limits"], strict=True):
        arguments = loads(text)
        arm(timer, limit)
        begin = cpu()
        try:
            value = entry(*arguments)
        except BaseException as error:
            return _report(send, result, "!", _describe(error))
        try:
            text = dumps(value)  # within the limit too: encoding may run an iterator of the program
            line = f"={cpu() - begin:.6f} {text}\n"
        except values.NotPlain as error:
            return _report(send, result, "?", str(error))
        except BaseException as error:
            return _report(send, result, "?", f"a value that cannot be read ({_describe(error)})")
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


def _report(send: Callable[[int, bytes], int], result: int, kind: str, text: str) -> None:
    _send(send, result, f"{kind}{json.dumps(text[:300])}\n")


def _send(send: Callable[[int, bytes], int], result: int, line: str) -> None:
    data = memoryview(line.encode("ascii"))
    while data:
        data = data[send(result, data) :]
