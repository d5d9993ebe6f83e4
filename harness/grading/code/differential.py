"""Grades programs by differential testing: a program is right if its outputs equal the canonical solution's.

Each suite (EvalPlus' ``base`` inputs, then its ``plus`` inputs) runs in one sandbox process, with one call per input.
Outputs are sent as plain values and compared here, on the trusted side, as they arrive. Nothing that a program does to
its own process can therefore turn a wrong output into a right one.

Limits are in CPU time: ``max(FLOOR_S, FACTOR x canonical)`` per call. EvalPlus 0.3.1 has a floor of 1 s of wall time,
which fails canonical solutions on a busy machine; later versions have one of 4 s.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, islice
from numbers import Number
from pathlib import Path
from typing import Any

from harness import durable
from harness.data import cache_dir
from harness.errors import RunFailed
from harness.grading.code.problem import CodeProblem
from harness.sandbox import End, Sandbox, SandboxJob, SandboxOutcome, arrays, shared
from harness.sandbox.arrays import Several
from harness.sandbox.job import printable
from harness.sandbox.pool import PATIENCE
from harness.sandbox.values import Digest, Iterated, loads
from harness.types import Verdict

FLOOR_S = 4.0
FACTOR = 4.0
TOTAL_S = 60.0  # per suite, or FACTOR times the time of the canonical solution if that is more
READ_ROOM = 2**24  # characters of a program's outputs to read, beyond twice the expected ones
OUTPUT_ROOM = 2**26  # characters of all outputs of a program under given tests
ALONE = 3.0  # factor on the patience when a program is run a second time

_REASONS = {
    End.TIMEOUT: "timeout on {test} ({detail})",
    End.STALLED: "timeout on {test} ({detail}, twice)",
    End.RAISED: "failed {test}: raised {detail}",
    End.NOT_PLAIN: "failed {test}: returned {detail}",
    End.DIED: "failed {test}: {detail}",
    End.MALFORMED: "failed {test}: wrote to the channel of the results",
    End.LOST: "{test}: the sandbox was lost ({detail})",
}


def grade(
    problems: Sequence[CodeProblem], programs: Sequence[str | None], sandbox: Sandbox | None = None
) -> list[Verdict]:
    """Verdicts on ``programs`` (None: no program), each on the problem at the same index.

    A program must pass all suites of its problem. Raises RunFailed if a canonical solution fails.
    """
    grader = _Grader(sandbox or shared())
    pairs = list(zip(problems, programs, strict=True))
    with ThreadPoolExecutor(grader.sandbox.workers, thread_name_prefix="grade") as threads:
        verdicts = list(threads.map(lambda pair: grader.judge(*pair), pairs))
    # Run a program again if it got no CPU time for long or lost its sandbox, now that no other one runs here: another
    # process may have used up the machine.
    return [
        verdict or grader.judge(*pair, patience=PATIENCE * ALONE, last=True)
        for pair, verdict in zip(pairs, verdicts, strict=True)
    ]


class _Grader:
    """Grades one batch; keeps the expected outputs that were needed so far."""

    def __init__(self, sandbox: Sandbox):
        self.sandbox = sandbox
        self.truths: dict[tuple[int, str], Truth] = {}

    def judge(
        self, problem: CodeProblem, program: str | None, patience: float = PATIENCE, last: bool = False
    ) -> Verdict | None:
        """The verdict, or None if the machine was too busy to reach one and this is not the ``last`` try."""
        if program is None or not program.strip():
            return Verdict(problem.task_id, 0, 0.0, "no program in the completion")
        tests = 0
        for suite in problem.suites:
            outcome, reason = _run(problem, program, suite, self.truth(problem, suite), self.sandbox, patience)
            if outcome.end in (End.STALLED, End.LOST) and not last:
                return None
            if outcome.end is not End.DONE:
                return Verdict(problem.task_id, 0, 0.0, reason, program, error=outcome.end is End.LOST)
            tests += outcome.calls
        return Verdict(problem.task_id, 0, 1.0, f"passed all {tests} tests", program)

    def truth(self, problem: CodeProblem, suite: str) -> Truth:
        key = id(problem), suite
        if key not in self.truths:
            self.truths[key] = truth(problem, suite, self.sandbox)
        return self.truths[key]


def _run(
    problem: CodeProblem, program: str, suite: str, expected: Truth, sandbox: Sandbox, patience: float
) -> tuple[SandboxOutcome, str]:
    """Runs the program on ``suite``. Returns the outcome, and the reason if it did not pass."""
    inputs = problem.suites[suite]
    wrong = ""
    room = READ_ROOM + 2 * sum(map(len, expected.outputs))

    def receive(call: int, text: bytes, _: float) -> bool:
        nonlocal wrong, room
        # Equal texts encode equal values.
        if text == expected.outputs[call]:
            return True
        room -= len(text)
        if room < 0:
            wrong = "outputs that are too large to be read"
            return False
        try:
            if accepts(problem, inputs[call], expected.outputs[call], text):
                return True
            wrong = f"expected {shown_value(expected.outputs[call])}, got {shown_value(text)}"
        except ValueError as error:
            wrong = f"an output that cannot be read ({printable(str(error))})"
        return False

    outcome = sandbox.run(_job(problem, program, inputs, expected), receive, patience)
    test = f"{suite} test {outcome.calls + 1}"
    if outcome.end is End.STOPPED:
        return outcome, f"failed {test}: {wrong}"
    if outcome.end is End.UNDEFINED:
        return outcome, f"the program cannot be run: {outcome.detail}"
    reason = _REASONS.get(outcome.end, "")
    return outcome, reason.format(test=test, detail=outcome.detail)


def _job(problem: CodeProblem, program: str, inputs: list[str], expected: Truth) -> SandboxJob:
    return SandboxJob(
        program=program,
        entry_point=problem.entry_point,
        inputs=inputs,
        limits=[max(FLOOR_S, FACTOR * seconds) for seconds in expected.seconds],
        define_limit=FLOOR_S,
        cpu_seconds=max(TOTAL_S, FACTOR * sum(expected.seconds)),
    )


# Decides whether an output equals the expected one, by EvalPlus' rules, on the trusted side.
#
# The rules are those of ``evalplus.eval.unsafe_execute`` (0.3.1) with its special oracles, except for its errors:
# HumanEval/32 can pass; a tolerance set by one test does not apply to later tests; special oracles get the inputs
# unchanged by the program; shapes must be equal, not merely broadcastable.
#
# NumPy scalars and arrays are compared by NumPy's ``==``, as in EvalPlus: ``np.int64(3)`` equals 3 and
# ``np.array([3])`` equals ``[3]``, while an array of several elements has no truth value and fails. They get no
# tolerance, because EvalPlus applies one only to values of the same type.
#
# The size of untrusted values is limited before they are built, in proportion to the expected value: see
# :func:`harness.sandbox.values.loads`.

FLOAT_ATOL = 1e-6
RTOL = 1e-7
SPARE_MEMBERS = 1000  # members of sets and dicts that are built beyond the number in the expected value


def accepts(problem: CodeProblem, arguments: str, expected: bytes, got: bytes) -> bool:
    """Whether ``got`` is right if the canonical solution returned ``expected``; all three are encoded values.

    Raises ValueError if ``got`` is not an encoded value.
    """
    want = loads(expected)
    # Some problems compare only members, so a program may return a set for an expected list.
    listed = len(want) if isinstance(want, list | tuple) else 0
    have = loads(got, most=SPARE_MEMBERS + members_of(want) + listed)
    # Values too large to send compare by digest.
    if isinstance(want, Digest) or isinstance(have, Digest):
        return type(want) is type(have) and want == have
    import numpy

    try:
        with numpy.errstate(all="ignore"):
            return bool(_accepts(problem, arguments, want, have))
    except (TypeError, ValueError, OverflowError, RecursionError, ZeroDivisionError):
        return False  # the rule does not apply to this output; EvalPlus fails it by the same exception


def members_of(value: Any) -> int:
    """The total number of members of the sets and dicts in ``value``."""
    if isinstance(value, list | tuple | deque):
        return sum(map(members_of, value))
    if isinstance(value, set | frozenset):
        return len(value) + sum(map(members_of, value))
    if isinstance(value, dict):
        return len(value) + sum(map(members_of, chain(value, value.values())))
    return 0


def _accepts(problem: CodeProblem, arguments: str, want: Any, have: Any) -> bool:
    import numpy
    from evalplus.eval import _special_oracle as oracles

    entry_point, atol = problem.entry_point, problem.atol
    if problem.task_id == "HumanEval/32":
        return abs(oracles._poly(*loads(arguments), have)) <= atol
    # Special oracles of MBPP, as in EvalPlus.
    from_mbpp = problem.task_id.startswith("Mbpp/")
    if from_mbpp and entry_point in oracles.MBPP_OUTPUT_NOT_NONE_TASKS:
        not_none = have if isinstance(have, bool) else have is not None
        return not_none == (want is not None)
    if from_mbpp and entry_point in oracles.MBPP_OUTPUT_SET_EQ_TASKS:
        if isinstance(have, Several):  # EvalPlus evaluates out == exp first, which raises for other shapes
            numpy.broadcast_shapes(have.array.shape, numpy.shape(want))
        exact = _same_members(want, have)
    else:
        exact = have == want
        if from_mbpp and entry_point == "surface_Area":
            exact = exact or abs(have - oracles._surface_Area(*loads(arguments))) <= atol
        elif from_mbpp and entry_point == "digit_distance_nums":
            exact = exact or have == oracles._digit_distance_nums(*loads(arguments))
    if exact:
        return True
    # Without an exact match, floats get EvalPlus' default tolerance.
    if atol == 0 and _floats(want):
        atol = FLOAT_ATOL
    return atol != 0 and _close(want, have, atol)


def _same_members(want: Any, have: Any) -> bool:
    """``set(want) == set(have)``, with a hash table of the expected members only."""
    places = {member: place for place, member in enumerate(set(want))}
    matched = {places.get(member, -1) for member in have}
    return -1 not in matched and len(matched) == len(places)


def _floats(value: Any) -> bool:
    if isinstance(value, list | tuple) and value:
        return all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def _close(want: Any, have: Any, atol: float) -> bool:
    import numpy

    if type(want) is not type(have):
        return False
    have = _unpacked(have)
    if not _alike(want, have):
        return False
    return bool(numpy.allclose(have, want, rtol=RTOL, atol=atol))


def _unpacked(value: Any) -> Any:
    """``value`` with its arrays as lists."""
    if isinstance(value, list | tuple):
        return [_unpacked(item) for item in value]
    if isinstance(value, Several):
        return value.array.tolist()
    return value.tolist() if arrays.belongs(type(value)) else value


def _alike(want: Any, have: Any) -> bool:
    """Whether two nested lists of numbers have the same shape; checked before NumPy converts them."""
    if isinstance(want, list | tuple):
        return (
            isinstance(have, list | tuple)
            and len(want) == len(have)
            and all(map(_alike, want, have))
            and len({len(item) if isinstance(item, list | tuple) else -1 for item in have}) <= 1
        )
    return isinstance(want, Number) and isinstance(have, Number)


def shown_value(text: bytes | str, limit: int = 80) -> str:
    """An encoded value for the reason of a verdict: on one line of at most ``limit`` characters."""
    value = loads(text, most=SPARE_MEMBERS)
    if isinstance(value, Digest):
        shown = f"a large {value}"
    elif isinstance(value, Iterated):
        shown = "an iterator"
    else:
        shown = _shown_part(value, limit)
    shown = printable(shown)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _shown_part(value: Any, limit: int) -> str:
    if isinstance(value, list | tuple | deque) and len(value) > limit:
        value = type(value)(islice(value, limit))
    try:
        return repr(value)
    except ValueError:  # an int with more digits than CPython converts
        return "a huge number"


# Expected outputs: the outputs of the canonical solutions, computed once in the sandbox and cached.
#
# Cache files are JSON, named by the hash of everything that determines their content, written atomically, and
# verified when read.

TRUTH_VERSION = 2  # of the encoding of values and of the way they are computed
CALL_LIMIT_S = 120.0
TRUTH_LIMIT_S = 600.0


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
    path = _truth_path(TRUTH_VERSION, sys.version_info[:2], program, problem.entry_point, inputs)
    expected = _read_truth(path, len(inputs))
    if expected is None:
        expected = _compute_truth(problem, program, inputs, sandbox)
        _write_truth(path, expected)
    return expected


def _compute_truth(problem: CodeProblem, program: str, inputs: list[str], sandbox: Sandbox) -> Truth:
    expected = Truth([], [])

    def receive(_: int, text: bytes, seconds: float) -> bool:
        expected.outputs.append(text)
        expected.seconds.append(seconds)
        return True

    job = SandboxJob(program, problem.entry_point, inputs, [CALL_LIMIT_S] * len(inputs), CALL_LIMIT_S, TRUTH_LIMIT_S)
    outcome = sandbox.run(job, receive)
    if outcome.end in (End.LOST, End.STALLED):  # another process may have used up the machine
        expected = Truth([], [])
        outcome = sandbox.run(job, receive)
    if outcome.end is not End.DONE:
        raise RunFailed(
            f"{problem.task_id}: the canonical solution did not complete: {outcome.end} "
            f"at input {outcome.calls + 1} {outcome.detail}".rstrip()
        )
    return expected


def _truth_path(*content: object) -> Path:
    key = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return cache_dir() / "expected" / key[:2] / f"{key}.json"


def _truth_checksum(outputs: list[str], seconds: list[float]) -> str:
    return hashlib.sha256(json.dumps([outputs, seconds]).encode()).hexdigest()


def _read_truth(path: Path, n: int) -> Truth | None:
    """The cached outputs, or None if the file is missing or damaged."""
    try:
        kept = json.loads(path.read_text("ascii"))
        outputs, seconds = kept["outputs"], kept["seconds"]
        if len(outputs) != n or kept["sha256"] != _truth_checksum(outputs, seconds):
            return None
        return Truth([text.encode("ascii") for text in outputs], seconds)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write_truth(path: Path, expected: Truth) -> None:
    outputs = [text.decode("ascii") for text in expected.outputs]
    kept = {"sha256": _truth_checksum(outputs, expected.seconds), "outputs": outputs, "seconds": expected.seconds}
    try:
        durable.write(path, json.dumps(kept).encode("ascii"))
    except OSError as error:
        logging.getLogger(__name__).warning("could not cache expected outputs: %s", error)
