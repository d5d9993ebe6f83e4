"""A run in the sandbox: a program with its inputs, how it ended, and the lines in which its results come back."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from harness.sandbox.values import LINE_LIMIT


@dataclass(frozen=True)
class SandboxJob:
    """A program whose ``entry_point`` is called once per input, in order, in one process.

    ``inputs`` are texts from :func:`harness.sandbox.values.dumps`, each a list of positional arguments. ``limits`` are
    the CPU seconds of each call, ``define_limit`` those of the definition, ``cpu_seconds`` those of the whole process.
    """

    program: str
    entry_point: str
    inputs: Sequence[str]
    limits: Sequence[float]
    define_limit: float
    cpu_seconds: float

    def encode(self) -> bytes:
        return json.dumps(vars(self) | {"cpu_seconds": math.ceil(self.cpu_seconds)}).encode()

    def limit(self, calls: int) -> float:
        """The CPU limit of the call in progress after ``calls`` calls have returned, in seconds."""
        return max(self.define_limit, *self.limits[calls : calls + 1])


class End(StrEnum):
    """How a run ended. Only DONE means that every call returned. The values appear in reasons of verdicts."""

    DONE = "done"
    STOPPED = "stopped by the receiver"
    UNDEFINED = "the program could not be defined"
    RAISED = "a call raised"
    NOT_PLAIN = "a call returned no plain value"
    TIMEOUT = "out of time"
    STALLED = "no progress, while the machine was too busy to say why"
    DIED = "the process died"
    MALFORMED = "the process wrote something else than results"
    LOST = "the sandbox was lost"


@dataclass(frozen=True)
class SandboxOutcome:
    """How a run ended, after ``calls`` returned calls; CPU time in seconds and peak memory in bytes of the process."""

    end: End
    detail: str
    calls: int
    cpu: float = 0.0
    memory: int = 0


# Called with the index of the call, the text of its value and its CPU seconds. Returning False ends the run.
Receiver = Callable[[int, bytes, float], bool]

REASON_LIMIT = 4096  # bytes of the line that gives the reason of an end; enough for REASON_LENGTH escaped characters
REASON_LENGTH = 300


class Transcript:
    """The lines of one program, in the format of :mod:`harness.sandbox.program`; anything else is MALFORMED."""

    def __init__(self, job: SandboxJob, receive: Receiver):
        self.expected = len(job.inputs)
        self.receive = receive
        self.rest = bytearray()
        self.calls = 0
        self.detail = ""

    def take(self, data: bytes) -> End | None:
        """Parses the next chunk. Returns the end once the program has reported one, or sent something malformed."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            self.rest += line
            end = self.line(bytes(self.rest)) if len(self.rest) <= LINE_LIMIT else End.MALFORMED
            if end is not None:
                return end
            self.rest.clear()
        self.rest += rest
        return End.MALFORMED if len(self.rest) > LINE_LIMIT else None

    def line(self, line: bytes) -> End | None:
        """Parses one line without its newline."""
        kind, body = line[:1], line[1:]
        try:
            if kind == b"=" and self.calls < self.expected:
                seconds, _, text = body.partition(b" ")
                if not _SECONDS.fullmatch(seconds):
                    return End.MALFORMED
                if not self.receive(self.calls, text, float(seconds)):
                    return End.STOPPED
                self.calls += 1
                return None
            if kind == b"." and self.calls == self.expected:
                return End.DONE
            if kind in _ENDS and len(body) <= REASON_LIMIT:
                detail = json.loads(body)
                if isinstance(detail, str):
                    self.detail = printable(detail)
                    return _ENDS[kind]
        except (ValueError, RecursionError):
            pass
        self.detail = ""
        return End.MALFORMED


def printable(text: str) -> str:
    """``text`` shortened to REASON_LENGTH characters on one line, with control characters escaped."""
    shown = (char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[:REASON_LENGTH])
    return "".join(shown)[:REASON_LENGTH]


_SECONDS = re.compile(rb"\d{1,9}(\.\d{1,9})?")
_ENDS = {b"?": End.NOT_PLAIN, b"!": End.RAISED, b"#": End.UNDEFINED}
