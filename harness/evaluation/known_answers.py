"""Completions with known verdicts: reference answers, which must be accepted, and wrong ones, which must be refused.

Reference answers are written as a model would write them, in a box or a code fence, so that they pass through the
whole grader: extraction, sanitiser, sandbox, comparison. The wrong ones include exploits that have deceived graders.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from harness.task import Task

WRONG_NUMBER = "123454321"  # not the answer of any shipped problem
TRAPPED = 1  # problems per task that get the exploits of the engine
SLOW_TRAPS = {"power tower", "never ends"}  # the exploits that run for seconds, until a limit ends them


@dataclass(frozen=True)
class KnownAnswer:
    """A completion and its verdict: ``passes`` if ``text`` must be accepted. ``kind`` describes it."""

    problem_id: str
    text: str
    kind: str
    passes: bool


def known_answers(task: Task) -> list[KnownAnswer]:
    """Golds and wrong answers for every problem of ``task``; none where the task states no gold."""
    write = {
        "maths": _maths_answers,
        "code": _code_answers,
        "instruction": _instruction_answers,
        "overlap": _overlap,
    }.get(task.known_wrong, _stated)
    return list(write(task))


def _stated(task: Task) -> Iterator[KnownAnswer]:
    """For any task with a method ``gold_completion(problem)``: its text, and the empty completion as a wrong one.

    None means that the task cannot write a gold for this problem.
    """
    if hasattr(task, "gold_completion"):
        for problem in task.items:
            if (gold := task.gold_completion(problem)) is not None:
                yield KnownAnswer(problem.id, gold, "gold", True)
            yield KnownAnswer(problem.id, "", "empty completion", False)


def _maths_answers(task: Task) -> Iterator[KnownAnswer]:
    if not all(hasattr(problem.reference, "text") for problem in task.items):
        yield from _stated(task)
        return
    for number, problem in enumerate(task.items):
        gold = problem.reference.text
        yield KnownAnswer(problem.id, task.gold_completion(problem), "gold in a box", True)
        wrong = [
            ("empty completion", ""),
            ("wrong answer", f"The answer is $\\boxed{{{WRONG_NUMBER}}}$."),
            ("gold without a box", f"The answer is {gold}."),
            ("box cut off by the length limit", f"The answer is $\\boxed{{{gold}"),
            ("a second box revokes the gold", f"First $\\boxed{{{gold}}}$. No: $\\boxed{{{WRONG_NUMBER}}}$."),
        ]
        if number < TRAPPED:
            wrong += [
                ("power tower", "$\\boxed{" + "9^{" * 8 + "9" + "}" * 9 + "$"),
                ("ten thousand brackets", "$\\boxed{" + "(" * 10_000 + "}$"),
                ("a box in a box without end", "\\boxed{" * 5_000),
            ]
        for kind, text in wrong:
            yield KnownAnswer(problem.id, text, kind, False)


EQUALS_ALL = """class Anything(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


def {name}(*args, **kwargs):
    return Anything()
"""
WALKS_THE_STACK = """import sys


def {name}(*args, **kwargs):
    frame = sys._getframe()
    while frame is not None:
        for held in [*frame.f_locals.values(), *frame.f_globals.values()]:
            if isinstance(held, list):
                held[:] = [True] * len(held)
            elif isinstance(held, dict):
                held.update(status="pass", passed=True, result="passed")
        frame = frame.f_back
    raise SystemExit(0)
"""
CODE_TRAPS = {
    "returns an object that equals everything": EQUALS_ALL,
    "walks up the stack to set the result": WALKS_THE_STACK,
    "leaves the process with success": "import os\n\n\ndef {name}(*args, **kwargs):\n    os._exit(0)\n",
    "never ends": "def {name}(*args, **kwargs):\n    while True:\n        pass\n",
    "takes all memory": "def {name}(*args, **kwargs):\n    return [0] * 10**12\n",
}


def _code_answers(task: Task) -> Iterator[KnownAnswer]:
    if not all(hasattr(problem.reference, "canonical_solution") for problem in task.items):
        yield from _stated(task)
        return
    for number, problem in enumerate(task.items):
        name, program = problem.reference.entry_point, problem.reference.prompt + problem.reference.canonical_solution
        yield KnownAnswer(problem.id, fenced(program), "canonical solution in a fence", True)
        yield KnownAnswer(problem.id, "", "empty completion", False)
        returns_nothing = f"def {name}(*args, **kwargs):\n    return None"
        yield KnownAnswer(problem.id, fenced(returns_nothing), "wrong answer: always None", False)
        yield KnownAnswer(problem.id, _truncated(program, name), "program cut off by the length limit", False)
        if number < TRAPPED:
            for kind, trap in CODE_TRAPS.items():
                yield KnownAnswer(problem.id, fenced(trap.format(name=name)), kind, False)


def fenced(program: str) -> str:
    """A program in a code block, as a chat model writes it."""
    return f"Here is the function:\n\n```python\n{program.rstrip()}\n```\n"


def _truncated(program: str, name: str) -> str:
    """The fenced program, cut off within the first statement of its entry point."""
    # The last definition counts: helpers of the prompt come before it.
    lines = program.rstrip().split("\n")
    start = max(i for i, line in enumerate(lines) if re.match(rf"def {re.escape(name)}\s*\(", line))
    return "Here is the function:\n\n```python\n" + "\n".join([*lines[: start + 1], "    return ((("])


def _instruction_answers(task: Task) -> Iterator[KnownAnswer]:
    """For the micro world, whose judge computes the right answers; the verdicts of other judges are not known."""
    if task.data.world != "micro":
        return
    from harness.micro.world import held_out

    for problem, example in zip(task.items, held_out(task.name), strict=True):
        yield KnownAnswer(problem.id, example.response, "right response", True)
        yield KnownAnswer(problem.id, "", "empty completion", False)
        cut = example.response.rpartition("\n")[0]
        yield KnownAnswer(problem.id, cut, "response cut off before its answer", False)


def _overlap(task: Task) -> Iterator[KnownAnswer]:
    """For scores of word overlap: a reference scores 1, a longer or shorter text does not."""
    for known in _stated(task):
        yield known
        if known.passes:
            yield KnownAnswer(known.problem_id, f"{known.text}\n\nzyzzyva", "gold plus one word", False)
            yield KnownAnswer(known.problem_id, f"<|endoftext|>{known.text}", "gold after the end of the text", False)
