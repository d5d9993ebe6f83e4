"""Programs for contests: whole programs that read standard input, or methods of a class, tested on given outputs.

As LiveCodeBench grades (lcb_runner/evaluation/testing_util.py): the program is the text between the last two code
fences; it runs with the standard library's names imported; each test has six seconds; printed lines are equal without
the white space around them, or as decimal numbers; a returned value must equal the expected one, a tuple standing for a
list. Here the program runs in the sandbox and its outputs are compared outside of it. A program that reads the file
descriptor 0 by ``os.read`` finds nothing there.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import os
import pickle
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.grading.code.differential import OUTPUT_ROOM
from harness.sandbox import End, Sandbox, SandboxJob, shared, tier
from harness.sandbox.pool import PATIENCE
from harness.sandbox.values import dumps, loads
from harness.types import Verdict

TEST_S = 6.0  # CPU seconds a test; upstream's are of wall time
TOTAL_S = 300.0  # of all tests of a problem
MEMBERS = 2**20  # of the sets and dicts in an output that are read
SHOWN = 60  # characters of a value in a reason
# What upstream imports before every program, in its order: later names replace earlier ones.
ALL_OF = (
    "string re datetime collections heapq bisect copy math random statistics itertools functools operator io sys json "
    "builtins typing"
)
PRELUDE = "".join(f"from {name} import *\n" for name in ALL_OF.split()) + "".join(
    f"import {name}\n" for name in ALL_OF.split()[:-2]
)
BY_CALL = """
import sys as harness_sys
harness_sys.setrecursionlimit(50000)
{prelude}
exec(compile({program!r}, "<solution>", "exec"), globals())
harness_method = getattr(Solution() if "Solution" in globals() else None, {name!r}, None) or globals()[{name!r}]

def harness_entry(*arguments):
    return harness_method(*arguments)
"""
BY_INPUT = """
import builtins as harness_builtins, io as harness_io, sys as harness_sys
harness_sys.setrecursionlimit(50000)
harness_source = compile({program!r}, "<solution>", "exec")
harness_names = compile({prelude!r}, "<names>", "exec")
harness_open = harness_builtins.open

def harness_entry(text):
    given = harness_io.TextIOWrapper(harness_io.BytesIO(text.encode()), "utf-8")
    said = harness_io.BytesIO()
    kept = harness_sys.stdin, harness_sys.stdout
    harness_sys.stdin, harness_sys.stdout = given, harness_io.TextIOWrapper(said, "utf-8", write_through=True)
    harness_builtins.open = lambda file, *a, **k: given if file in (0, "/dev/stdin") else harness_open(file, *a, **k)
    try:
        names = {{"__name__": "__main__"}}
        exec(harness_names, names)
        exec(harness_source, names)
    except SystemExit:
        pass
    finally:
        harness_sys.stdin, harness_sys.stdout = kept
        harness_builtins.open = harness_open
    return said.getvalue().decode("utf-8", "replace")
"""


@dataclass(frozen=True)
class ContestProblem:
    """A problem with its tests: what goes in, and the output that is expected.

    With a ``name`` the tests call this method (or function) with one argument per line of the input, each JSON, and the
    output is JSON; without one the program reads the input and prints the output.
    """

    id: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def arguments(self) -> list[str]:
        """The encoded argument list of every test."""
        if not self.name:
            return [dumps([text], room=2**30) for text in self.inputs]
        return [dumps([json.loads(line) for line in text.split("\n")], room=2**30) for text in self.inputs]

    def job(self, program: str) -> SandboxJob:
        """The program with all tests."""
        template = BY_CALL if self.name else BY_INPUT
        whole = template.format(prelude=PRELUDE, program=program, name=self.name)
        limits = [TEST_S] * len(self.inputs)
        return SandboxJob(whole, "harness_entry", self.arguments(), limits, TEST_S, TOTAL_S)

    def accepts(self, test: int, output: Any) -> bool:
        """Whether ``output``, returned or printed by the program, is the expected one."""
        if self.name:
            return (list(output) if isinstance(output, tuple) else output) == json.loads(self.outputs[test])
        return isinstance(output, str) and same_lines(output, self.outputs[test])


def program_of(text: str) -> str | None:
    """The program between the last two code fences of a completion; None where there are not two."""
    lines = text.split("\n")
    fences = [i for i, line in enumerate(lines) if "```" in line]
    return "\n".join(lines[fences[-2] + 1 : fences[-1]]) if len(fences) >= 2 else None


def same_lines(printed: str, expected: str) -> bool:
    """Whether two printed texts agree line by line: without white space around them, or as decimal numbers."""
    ours, theirs = ([line.strip() for line in text.strip().split("\n")] for text in (printed, expected))
    return len(ours) == len(theirs) and all(map(_same_line, ours, theirs))


def _same_line(ours: str, theirs: str) -> bool:
    if ours == theirs:
        return True
    try:
        return [Decimal(word) for word in ours.split()] == [Decimal(word) for word in theirs.split()]
    except InvalidOperation:
        return False


def walls() -> str:
    """The isolation in which programs run on this machine, in words."""
    return str(tier())


def grade(problems: Sequence[ContestProblem], programs: Sequence[str | None], sandbox: Sandbox | None = None) -> list:
    """Verdicts on ``programs`` (None: no program), each on the problem at the same index."""
    box = sandbox or shared()
    with ThreadPoolExecutor(box.workers, thread_name_prefix="grade") as threads:
        return list(threads.map(lambda pair: _judge(*pair, box), zip(problems, programs, strict=True)))


def _judge(problem: ContestProblem, program: str | None, sandbox: Sandbox) -> Verdict:
    if program is None or not program.strip():
        return Verdict(problem.id, 0, 0.0, "no program between two code fences")
    wrong, room = "", OUTPUT_ROOM

    def receive(test: int, text: bytes, _: float) -> bool:
        nonlocal wrong, room
        room -= len(text)
        try:
            output = loads(text, most=MEMBERS) if room >= 0 else None
            if room >= 0 and problem.accepts(test, output):
                return True
            wrong = f"expected {problem.outputs[test][:SHOWN]!r}, got {output!r:.{SHOWN}}"
        except (ValueError, RecursionError) as error:
            wrong = f"an output that cannot be read ({type(error).__name__})"
        return False

    job = problem.job(program)
    outcome = sandbox.run(job, receive)
    if outcome.end in (End.LOST, End.STALLED):  # another process may have used up the machine
        room = OUTPUT_ROOM
        outcome = sandbox.run(job, receive, 3 * PATIENCE)
    if outcome.end is End.DONE:
        return Verdict(problem.id, 0, 1.0, f"passed all {len(problem.inputs)} tests", program)
    fault = wrong if outcome.end is End.STOPPED else f"{outcome.end} ({outcome.detail})"
    reason = f"failed test {outcome.calls + 1} of {len(problem.inputs)}: {fault}"
    return Verdict(problem.id, 0, 0.0, reason, program, error=outcome.end is End.LOST)


# Rows of LiveCodeBench's code generation files: the question, its window, and its tests, some of them packed.
#
# Hidden tests are JSON, or JSON in a pickle in zlib in base64. Only a text may come out of that pickle: nothing in it
# is looked up or called.

UNPACKED = 2**30  # bytes of the tests of a problem
FIELDS = ("question_id", "question_content", "contest_date", "public_test_cases", "private_test_cases")


def read_row(row: Mapping[str, Any], where: str) -> ContestProblem:
    """The problem of a row. Raises BadInput with ``where`` and the field that is missing or malformed."""
    for field in FIELDS:
        if not isinstance(row.get(field), str):
            raise BadInput(f"{where} has no text under {field!r}; this is not a LiveCodeBench code generation file")
    try:
        facts = json.loads(row.get("metadata") or "{}")
        tests = [*json.loads(row["public_test_cases"]), *_hidden(row["private_test_cases"])]
        inputs, outputs = (tuple(str(test[key]) for test in tests) for key in ("input", "output"))
        problem = ContestProblem(row["question_id"], str(facts.get("func_name") or ""), inputs, outputs)
        problem.arguments()
        if problem.name:
            [json.loads(output) for output in outputs]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(f"{where} ({row['question_id']}): its tests cannot be read ({error})") from None
    if not inputs:
        raise BadInput(f"{where} ({row['question_id']}) has no tests")
    return problem


def passing_program(name: str) -> str | None:
    """A program that LiveCodeBench published as right for the problem; None if there is none.

    LiveCodeBench publishes programs of models with its verdicts (repository LiveCodeBench/submissions); any of these
    files may be put below ``$HARNESS_DATA/livecodebench/submissions/``.
    """
    return _published(os.environ.get("HARNESS_DATA", "")).get(name)


@cache
def _published(folder: str) -> dict[str, str]:
    programs: dict[str, str] = {}
    for path in sorted((Path(folder) / "livecodebench/submissions").glob("*.json")) if folder else ():
        for row in json.loads(path.read_text("utf-8")):
            right = [code for code, passed in zip(row["code_list"], row["graded_list"], strict=True) if passed]
            if right:
                programs.setdefault(row["question_id"], right[0])
    return programs


def _hidden(text: str) -> list[Any]:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        unpacked = zlib.decompressobj().decompress(base64.b64decode(text.encode(), validate=True), UNPACKED)
        unpickled = _TextAlone(io.BytesIO(unpacked)).load()
    except (binascii.Error, zlib.error, pickle.UnpicklingError, EOFError, IndexError) as error:
        raise ValueError(f"private_test_cases: {error}") from None
    if not isinstance(unpickled, str):
        raise ValueError("private_test_cases: its pickle holds no text")
    return json.loads(unpickled)


class _TextAlone(pickle.Unpickler):
    """Refuses a pickle that names anything to import."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"its pickle asks for {module}.{name}")
