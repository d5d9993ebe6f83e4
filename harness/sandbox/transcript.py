"""What a program says of itself, read line by line: untrusted text, bounded before anything looks into it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from harness.sandbox.job import End, SandboxJob
from harness.sandbox.values import LINE_LIMIT

# Called with the index of the call, the text of its value and its CPU seconds; False ends the run.
Receiver = Callable[[int, bytes, float], bool]

REASON_LIMIT = 4096  # bytes of the line that says why a program ended; 300 characters need no more
REASON_LENGTH = 300


class Transcript:
    """The lines of a program, see :mod:`harness.sandbox.program`; nothing in them is believed."""

    def __init__(self, job: SandboxJob, receive: Receiver):
        self.expected = len(job.inputs)
        self.receive = receive
        self.rest = bytearray()
        self.calls = 0
        self.detail = ""

    def take(self, data: bytes) -> End | None:
        """Reads on. Returns the end once there is one."""
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
    """``text`` on one line, short, with an escape for each character that a terminal or a table would act upon."""
    shown = (char if char.isprintable() else char.encode("unicode_escape").decode() for char in text[:REASON_LENGTH])
    return "".join(shown)[:REASON_LENGTH]


_SECONDS = re.compile(rb"\d{1,9}(\.\d{1,9})?")
_ENDS = {b"?": End.NOT_PLAIN, b"!": End.RAISED, b"#": End.UNDEFINED}
