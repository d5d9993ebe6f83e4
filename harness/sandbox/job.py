"""What goes into the sandbox and what comes out: a program with inputs, and how its run ended."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True)
class SandboxJob:
    """A program whose ``entry_point`` is called once per input, in order, in one process.

    ``inputs`` are texts of :func:`harness.sandbox.values.dumps`, each a list of positional arguments;
    ``limits`` are the CPU seconds of each call. ``cpu_seconds`` bounds the whole process.
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
        """CPU seconds of what the program may be doing after ``calls`` calls have returned."""
        return max(self.define_limit, *self.limits[calls : calls + 1])


class End(StrEnum):
    """How a run ended. DONE alone means that every call returned."""

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
    """``calls`` calls returned before the end. ``cpu`` in seconds and ``memory`` in bytes of the process."""

    end: End
    detail: str
    calls: int
    cpu: float = 0.0
    memory: int = 0
