"""Expected outputs: the outputs of the canonical solutions, computed once in the sandbox and cached.

Cache files are JSON, named by the hash of everything that determines their content, written atomically, and verified
when read.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path

from harness import atomic
from harness.data import cache_dir
from harness.errors import RunFailed
from harness.grading.code.problem import CodeProblem
from harness.sandbox import End, Sandbox, SandboxJob

VERSION = 2  # of the encoding of values and of the way they are computed
CALL_LIMIT_S = 120.0
TOTAL_LIMIT_S = 600.0


@dataclass(frozen=True)
class Truth:
    """Per input: the encoded expected value, and the CPU seconds that the canonical solution took."""

    outputs: list[bytes]
    seconds: list[float]


def truth(problem: CodeProblem, suite: str, sandbox: Sandbox) -> Truth:
    """The expected outputs of a suite. Raises RunFailed if the canonical solution does not complete."""
    inputs = problem.suites[suite]
    program = problem.prompt + problem.canonical_solution
    # The key covers the interpreter too: outputs may depend on its version.
    path = _path(VERSION, sys.version_info[:2], program, problem.entry_point, inputs)
    found = _read(path, len(inputs))
    if found is None:
        found = _compute(problem, program, inputs, sandbox)
        _write(path, found)
    return found


def _compute(problem: CodeProblem, program: str, inputs: list[str], sandbox: Sandbox) -> Truth:
    found = Truth([], [])

    def receive(_: int, text: bytes, seconds: float) -> bool:
        found.outputs.append(text)
        found.seconds.append(seconds)
        return True

    job = SandboxJob(program, problem.entry_point, inputs, [CALL_LIMIT_S] * len(inputs), CALL_LIMIT_S, TOTAL_LIMIT_S)
    outcome = sandbox.run(job, receive)
    if outcome.end in (End.LOST, End.STALLED):  # another process may have used up the machine
        found = Truth([], [])
        outcome = sandbox.run(job, receive)
    if outcome.end is not End.DONE:
        raise RunFailed(
            f"{problem.task_id}: the canonical solution did not complete: {outcome.end} "
            f"at input {outcome.calls + 1} {outcome.detail}".rstrip()
        )
    return found


def _path(*content: object) -> Path:
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return cache_dir() / "expected" / key[:2] / f"{key}.json"


def _checksum(outputs: list[str], seconds: list[float]) -> str:
    return hashlib.sha256(json.dumps([outputs, seconds]).encode()).hexdigest()


def _read(path: Path, n: int) -> Truth | None:
    """The cached outputs, or None if the file is missing or damaged."""
    try:
        kept = json.loads(path.read_text("ascii"))
        outputs, seconds = kept["outputs"], kept["seconds"]
        if len(outputs) != n or kept["sha256"] != _checksum(outputs, seconds):
            return None
        return Truth([text.encode("ascii") for text in outputs], seconds)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, found: Truth) -> None:
    outputs = [text.decode("ascii") for text in found.outputs]
    kept = {"sha256": _checksum(outputs, found.seconds), "outputs": outputs, "seconds": found.seconds}
    try:
        atomic.write(path, json.dumps(kept).encode("ascii"))
    except OSError as error:
        logging.getLogger(__name__).warning("could not cache expected outputs: %s", error)
