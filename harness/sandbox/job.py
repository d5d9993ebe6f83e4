"""The input and the outcome of a run in the sandbox: a program with its inputs, and how it ended."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


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
