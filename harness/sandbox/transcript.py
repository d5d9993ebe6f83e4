"""Parses the lines that a program sends. They are untrusted, so their size is checked before anything parses them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from harness.sandbox.job import End, SandboxJob
from harness.sandbox.values import LINE_LIMIT

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
