"""HumanEval as published: OpenAI's own ``check`` functions, run apart from the program that they grade.

``check(candidate)`` calls the program, but must not share a process with it, or the program could change the verdict.
It is therefore run twice without the program: first with the canonical solution, to record the calls that it makes;
then, after the program has answered these calls in the sandbox, with a candidate that replays its outputs, which are
plain values. A fixed seed makes tests with random inputs draw the same ones both times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from harness.errors import BadInput, RunFailed
from harness.grading.code.differential import ALONE, FLOOR_S, OUTPUT_ROOM, TOTAL_S
from harness.grading.code.problem import CodeProblem
from harness.sandbox import End, Sandbox, SandboxJob, shared
from harness.sandbox.pool import PATIENCE
from harness.sandbox.values import can_be_sent, dumps, loads
from harness.task import Dataset
from harness.types import Completion, Decoding, Problem, Prompt, Verdict

HUMANEVAL = Dataset(
    local="humaneval/HumanEval.jsonl.gz",
    repository="openai/human-eval",
    commit="6d43fb980f9fee3c892a914eda09951f772ad10d",
    path="data/HumanEval.jsonl.gz",
    sha256="b796127e635a67f93fb35c04f4cb03cf06f38c8072ee7cee8833d7bee06979ef",
    n=164,
)
# arXiv 2107.03374, section 3: nucleus 0.95, 200 samples, these stop strings; 0.2 is its temperature for pass@1.
DECODING = Decoding(
    temperature=0.2, top_p=0.95, max_new_tokens=512, samples=200, stop=("\nclass", "\ndef", "\n#", "\nif", "\nprint")
)
FIELDS = ("task_id", "prompt", "entry_point", "canonical_solution", "test")

RECORD = """

def harness_calls():
    import copy, random
    random.seed(0)
    calls = []
    def candidate(*arguments):
        calls.append(copy.deepcopy(list(arguments)))
        return {entry_point}(*arguments)
    check(candidate)
    return calls
"""
REPLAY = """

def harness_replay(outputs):
    import random
    random.seed(0)
    given = iter(outputs)
    check(lambda *arguments: next(given))
    return True
"""


@dataclass(frozen=True)
class CheckedProblem(CodeProblem):
    """A problem with OpenAI's ``test``: a module that defines ``check(candidate)``."""

    test: str

    @property
    def tester(self) -> str:
        """The source of the trusted module: prompt with helpers, canonical solution, test."""
        return f"{self.prompt}{self.canonical_solution}\n\n{self.test}\n"


class OpenAIChecks:
    """The rules of the protocol ``humaneval-original``, which replace those of CodeTask."""

    equivalence = "OpenAI's check(candidate) accepts the returned values"
    extractor = "the prompt with the completion up to a stop string, run as it is"

    def problems(self, rows: Sequence[Mapping[str, Any]]) -> list[Problem]:
        return [_problem(row, number) for number, row in enumerate(rows, 1)]

    def grade_all(self, completions: Sequence[Completion]) -> list[Verdict]:
        prompts = {problem.id: problem.reference.prompt for problem in self.items}
        programs = [prompts[c.problem_id] + _cut(c.text) for c in completions]
        return self.grade_programs(completions, programs)

    def grade_programs(self, completions: Sequence[Completion], programs: Sequence[str]) -> list[Verdict]:
        """Verdicts on whole programs. Raises RunFailed if a check refuses the canonical solution."""
        sandbox = shared()
        by_id = {problem.id: problem.reference for problem in self.items}
        ids = list(dict.fromkeys(c.problem_id for c in completions))
        # Record the calls of each check once, then judge every program on them.
        with ThreadPoolExecutor(sandbox.workers, thread_name_prefix="check") as threads:
            calls = dict(zip(ids, threads.map(lambda key: _calls(by_id[key], sandbox), ids), strict=True))

            def judge(pair: tuple[Completion, str]) -> Verdict:
                completion, program = pair
                problem = by_id[completion.problem_id]
                score, reason, error = _judge(problem, program, calls[completion.problem_id], sandbox)
                return Verdict(completion.problem_id, completion.sample, score, reason, program, error)

            return list(threads.map(judge, zip(completions, programs, strict=True)))

    def read_figures(self, graded: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """None: this protocol repairs nothing and does not use EvalPlus."""
        return {}

    def grader_identity(self) -> dict[str, Any]:
        return {"engine": "OpenAI's check functions on replayed outputs", "cpu_limits": {"call_s": FLOOR_S}}


def ask(task: Any, problem: Problem) -> Prompt:
    """The prompt to continue as plain text, for chat models too."""
    prompt = problem.reference.prompt
    return Prompt(user=prompt, plain=prompt, chat=False)


def _problem(row: Mapping[str, Any], number: int) -> Problem:
    missing = [field for field in FIELDS if not isinstance(row.get(field), str)]
    if missing:
        raise BadInput(
            f"row {number}: field {missing[0]!r} is missing or not a string; this is not OpenAI's HumanEval file"
        )
    facts = {field: row[field] for field in FIELDS}
    return Problem(row["task_id"], Prompt(row["prompt"], row["prompt"]), CheckedProblem(**facts, atol=0.0, inputs={}))


def _cut(text: str) -> str:
    return text[: min((at for at in map(text.find, DECODING.stop) if at >= 0), default=len(text))]


def _calls(problem: CheckedProblem, sandbox: Sandbox) -> list[str]:
    """The encoded argument lists with which ``check`` calls its candidate."""
    program = problem.tester + RECORD.format(entry_point=problem.entry_point)
    end, detail, outputs = _run(program, "harness_calls", ["[]"], sandbox)
    if end is not End.DONE:
        raise RunFailed(f"{problem.task_id}: OpenAI's check refuses the canonical solution: {end} {detail}".rstrip())
    return [dumps(arguments, room=2**30) for arguments in loads(outputs[0])]


def _judge(problem: CheckedProblem, program: str, calls: list[str], sandbox: Sandbox) -> tuple[float, str, bool]:
    """Score, reason, and whether no verdict was reached (an error)."""
    end, detail, outputs = _run(program, problem.entry_point, calls, sandbox)
    if end is not End.DONE:
        return 0.0, f"call {len(outputs) + 1} of {len(calls)}: {end} ({detail})", end in (End.LOST, End.STALLED)
    # Pass the outputs on as text: no untrusted value is built on the trusted side.
    if not all(map(can_be_sent, outputs)):
        return 0.0, "an output that is not a plain value, or is too large", False
    # Run the check on the outputs, in another process without the program.
    arguments = f"[[{','.join(outputs)}]]"
    end, detail, _ = _run(problem.tester + REPLAY, "harness_replay", [arguments], sandbox)
    if end is End.DONE:
        return 1.0, f"check accepts all {len(calls)} outputs", False
    return 0.0, f"check refuses the outputs: {detail or end}", end in (End.LOST, End.STALLED)


def _run(program: str, entry_point: str, inputs: list[str], sandbox: Sandbox) -> tuple[End, str, list[str]]:
    outputs: list[str] = []
    room = OUTPUT_ROOM

    def receive(_: int, text: bytes, __: float) -> bool:
        nonlocal room
        room -= len(text)
        outputs.append(text.decode("ascii"))
        return room >= 0

    job = SandboxJob(program, entry_point, inputs, [FLOOR_S] * len(inputs), FLOOR_S, TOTAL_S)
    outcome = sandbox.run(job, receive)
    if outcome.end in (End.LOST, End.STALLED):  # another process may have used up the machine
        outputs, room = [], OUTPUT_ROOM
        outcome = sandbox.run(job, receive, PATIENCE * ALONE)
    return outcome.end, outcome.detail, outputs
