"""Grades programs by differential testing: a program is right if its outputs equal the canonical solution's.

Each suite (EvalPlus' ``base`` inputs, then its ``plus`` inputs) runs in one sandbox process, with one call per input.
Outputs are sent as plain values and compared here, on the trusted side, as they arrive. Nothing that a program does to
its own process can therefore turn a wrong output into a right one.

Limits are in CPU time: ``max(FLOOR_S, FACTOR x canonical)`` per call. EvalPlus 0.3.1 has a floor of 1 s of wall time,
which fails canonical solutions on a busy machine; later versions have one of 4 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from harness.grading.code.oracle import accepts, show
from harness.grading.code.problem import CodeProblem
from harness.grading.code.truth import Truth, truth
from harness.sandbox import End, Sandbox, SandboxJob, SandboxOutcome, shared
from harness.sandbox.pool import PATIENCE
from harness.sandbox.transcript import printable
from harness.types import Verdict

FLOOR_S = 4.0
FACTOR = 4.0
TOTAL_S = 60.0  # per suite, or FACTOR times the time of the canonical solution if that is more
READ_ROOM = 2**24  # characters of a program's outputs that are read, beyond twice the expected ones
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
            wrong = f"expected {show(expected.outputs[call])}, got {show(text)}"
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
