"""A worker process: answers each JSON line with a JSON line. Started by :mod:`harness.grading.maths.pool`.

The process imports math-verify once and forks a child that serves. The kernel kills a child that exceeds a limit, and
a new one is forked in milliseconds. The limit is on CPU time, not wall time, so a busy machine changes no verdict.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys
from typing import BinaryIO

from harness.grading.maths import parser, qwen25
from harness.grading.maths.equal import equal
from harness.grading.maths.notation import clean

RULES = {  # the comparison named by a request
    "": equal,
    "qwen25": qwen25.equal,
    "qwen25, units kept": qwen25.equal_with_units,
}


def main(cpu_s: float, memory_bytes: int) -> None:
    """Forks serving children until one ends normally. ``cpu_s`` and ``memory_bytes`` limit each request."""
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    silence = os.open(os.devnull, os.O_RDWR)
    os.dup2(silence, 1)  # the grammar's runtime prints syntax errors to stdout
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    replies.write(b'{"ready": true}\n')
    os.dup2(silence, 2)
    while True:
        child = os.fork()
        if child == 0:
            serve(replies, cpu_s)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if os.waitstatus_to_exitcode(status) == 0:
            return
        over_time = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF
        replies.write(b'{"died": "%s"}\n' % (b"time" if over_time else b"crash"))


def serve(replies: BinaryIO, cpu_s: float) -> None:
    """Answers requests until the input is closed. The kernel kills the process if one takes ``cpu_s`` seconds."""
    requests = os.fdopen(0, "rb", buffering=0)
    for line in requests:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, cpu_s)
        parser.failures.clear()
        gold = clean(request["gold"]["text"])
        try:
            reply = {"equal": RULES[request["gold"].get("rules", "")](request["gold"], request["answer"])}
        except MemoryError:
            os._exit(1)
        except Exception as error:
            # sympy raises many types of errors on text of a model; such an answer cannot be read.
            parser.failures[request["answer"]] = type(error).__name__
            reply = {"equal": False}
        # Report errors on the answer only, not those on the reference.
        failed = [error for text, error in parser.failures.items() if text not in gold]
        if not reply["equal"] and failed:
            reply["unreadable"] = failed[-1]
        signal.setitimer(signal.ITIMER_PROF, 0)
        replies.write(json.dumps(reply).encode() + b"\n")


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
