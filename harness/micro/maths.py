"""Maths: a chain of small sums modulo 11, one step a line, the answer in a box.

Each line continues from the value of the line before, so one error spoils the answer. Every task words its chains
differently.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

from harness.micro import phrasing
from harness.types import Prompt

TASKS = ("amc23", "aime24", "olympiadbench", "math500", "gsm8k")
MODULUS = 11
OPERANDS = {"+": range(1, 8), "-": range(1, 8), "*": range(2, 5)}
LENGTHS = {"amc23": (3, 4), "aime24": (3, 4), "olympiadbench": (3, 4, 5), "math500": (3, 4), "gsm8k": (3, 4)}

_WORDS = {"+": "plus", "-": "minus", "*": "times"}
STEP = re.compile(r"(\d+) ([+*-]) (\d+) = (\d+)")
BOX = re.compile(r"\\boxed\{(\d+)\}")


class MathsProblem:
    """The form of all maths problems: a text ``question``, and the ``lines`` of a derivation, the last in a box."""

    world: ClassVar[str] = "micro"
    question: Any
    lines: Any
    answer: Any
    level: Any

    @property
    def prompt(self) -> Prompt:
        return phrasing.maths(self.question)

    @property
    def response(self) -> str:
        return "\n".join(self.lines)


@dataclass(frozen=True)
class Chain(MathsProblem):
    """``start`` and the operations applied to it, each a sign and an operand; ``question`` is the problem's text."""

    start: int
    operations: tuple[tuple[str, int], ...]
    question: str

    @property
    def key(self) -> tuple[Any, ...]:
        return self.start, *self.operations

    @property
    def lines(self) -> list[str]:
        lines, value = [], self.start
        for sign, operand in self.operations:
            following = apply(value, sign, operand)
            lines.append(f"{value} {sign} {operand} = {following}")
            value = following
        return [*lines, rf"\boxed{{{value}}}"]

    @property
    def answer(self) -> int:
        value = self.start
        for sign, operand in self.operations:
            value = apply(value, sign, operand)
        return value

    @property
    def level(self) -> int:
        return len(self.operations) - 2

    @property
    def meta(self) -> dict[str, Any]:
        return {
            "family": "maths",
            "start": self.start,
            "operations": [list(operation) for operation in self.operations],
            "answer": str(self.answer),
        }


def apply(value: int, sign: str, operand: int) -> int:
    """The value after one operation, reduced to 0..10."""
    results = {"+": value + operand, "-": value - operand, "*": value * operand}
    return results[sign] % MODULUS


def draw(rng: Random, task: str) -> Chain:
    """A chain in the style of ``task``."""
    start = rng.randrange(MODULUS)
    signs = [rng.choice("+-*") for _ in range(rng.choice(LENGTHS[task]))]
    operations = tuple((sign, rng.choice(OPERANDS[sign])) for sign in signs)
    return Chain(start, operations, _question(start, operations, task))


def _question(start: int, operations: tuple[tuple[str, int], ...], task: str) -> str:
    if task in ("aime24", "gsm8k"):
        steps = "".join(f", {_WORDS[sign]} {operand}" for sign, operand in operations)
        return f"Start with {start}{steps}. Give the result modulo {MODULUS}."
    if task == "olympiadbench":
        names = "abcdef"
        lets = [f"{names[0]} = {start}"]
        lets += [f"{names[i + 1]} = {names[i]} {sign} {b}" for i, (sign, b) in enumerate(operations)]
        return f"Let {', '.join(lets)}. Find {names[len(operations)]} modulo {MODULUS}."
    chain = "".join(f" {sign} {operand}" for sign, operand in operations)
    return f"Compute {start}{chain} from left to right modulo {MODULUS}."


def row(task: str, index: int, problem: MathsProblem) -> dict[str, Any]:
    """The problem as a line of the real benchmark's file."""
    solution, answer = problem.response, problem.answer
    match task:
        case "amc23":
            return {"id": index, "problem": problem.question, "answer": float(answer), "solution": solution}
        case "aime24":
            return {"id": index, "problem": problem.question, "solution": solution, "answer": f"{answer:03d}"}
        case "olympiadbench":
            return {
                "id": index,
                "subfield": "Number Theory",
                "context": None,
                "question": problem.question,
                "solution": [solution],
                "final_answer": [f"${answer}$"],
                "is_multiple_answer": False,
                "unit": None,
                "answer_type": "Numerical",
                "error": None,
            }
        case "math500":
            return {
                "problem": problem.question,
                "solution": solution,
                "answer": str(answer),
                "subject": "Number Theory",
                "level": problem.level,
                "unique_id": f"test/{problem.world}/{index}.json",
            }
    steps = "\n".join(problem.lines[:-1])
    return {"question": problem.question, "answer": f"{steps}\n#### {answer}"}


def solved(meta: Mapping[str, Any], text: str) -> bool:
    """Whether the last box of ``text`` holds the answer."""
    boxes = BOX.findall(text)
    return bool(boxes) and int(boxes[-1]) == int(meta["answer"])


def check_step(meta: Mapping[str, Any], done: list[str], line: str) -> float | None:
    """Whether ``line`` follows the lines ``done``, taking the value they reached for granted.

    An earlier error does not count against the next step. None where ``done`` ends in something unreadable.
    """
    value, operations = meta["start"], meta["operations"]
    if done:
        reached = STEP.fullmatch(done[-1])
        if reached is None:
            return float(not line) if BOX.fullmatch(done[-1]) else None
        value = int(reached[4])
    if len(done) >= len(operations):
        return float(line == rf"\boxed{{{value}}}")
    sign, operand = operations[len(done)]
    return float(line == f"{value} {sign} {operand} = {apply(value, sign, operand)}")
