"""Instruction following: do two or three things to a list of words, show each, end with the answer.

The text of the instruction is self-contained, so a judge needs nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from harness.micro import phrasing
from harness.micro.phrasing import narrate, understand
from harness.types import Prompt

TASKS = ("alpaca_eval", "evol_instruct")
WORDS = (
    "apple", "bread", "cloud", "dance", "eagle", "flame", "grape", "house",
    "island", "jewel", "knife", "lemon", "mouse", "night", "ocean", "piano",
)  # fmt: skip
LEAD = {"alpaca_eval": "Please", "evol_instruct": "Given some words,"}
LENGTHS = {"alpaca_eval": (2, 3), "evol_instruct": (3,)}
BASELINE_RIGHT = 0.5  # share of right answers in the reference outputs


@dataclass(frozen=True)
class TextOperation:
    """A step: its name in the response, the ways to ask for it, and what it does to the list of words."""

    name: str
    phrases: tuple[str, ...]
    do: Callable[[list[str]], list[str]]


def swapped(words: list[str]) -> list[str]:
    """The words with first and last exchanged; a single word stays."""
    return [words[-1], *words[1:-1], words[0]] if len(words) > 1 else words


STEPS = (
    TextOperation("reverse", ("reverse the order", "write them backwards"), lambda w: w[::-1]),
    TextOperation("sort", ("sort them alphabetically", "put them in alphabetical order"), sorted),
    TextOperation("behead", ("drop the first word", "leave out the first word"), lambda w: w[1:]),
    TextOperation("curtail", ("drop the last word", "leave out the last word"), lambda w: w[:-1]),
    TextOperation("swap", ("swap the first and last words", "exchange the two ends"), swapped),
    TextOperation("rotate", ("move the first word to the end", "put the first word last"), lambda w: [*w[1:], w[0]]),
)
BY_PHRASE = {phrase: operation for operation in STEPS for phrase in operation.phrases}

_TEXT = re.compile(rf"(?:{'|'.join(map(re.escape, LEAD.values()))}) ([^:]+): ([a-z ]+)")


@dataclass(frozen=True)
class TextRequest:
    """The words and the operations on them; ``text`` is the instruction."""

    words: tuple[str, ...]
    operations: tuple[TextOperation, ...]
    text: str

    @property
    def key(self) -> tuple[Any, ...]:
        return self.words, tuple(operation.name for operation in self.operations)

    @property
    def prompt(self) -> Prompt:
        return phrasing.instruction(self.text)

    @property
    def response(self) -> str:
        return "\n".join(self.lines)

    @property
    def lines(self) -> list[str]:
        return work(self.words, self.operations)

    @property
    def answer(self) -> str:
        return self.lines[-1].removeprefix("Answer: ")

    @property
    def meta(self) -> dict[str, Any]:
        return {"family": "instruction", "instruction": self.text, "answer": self.answer}


def work(words: Sequence[str], operations: Sequence[TextOperation]) -> list[str]:
    """The lines of the response: each operation with the words after it, then the answer."""
    lines, words = [], list(words)
    for operation in operations:
        words = operation.do(words)
        lines.append(f"{operation.name}: {' '.join(words)}")
    return [*lines, f"Answer: {' '.join(words)}"]


def draw(rng: Random, task: str) -> TextRequest:
    """A request in the wording of ``task``."""
    words = tuple(rng.sample(WORDS, rng.choice((3, 4))))
    operations = tuple(rng.sample(STEPS, rng.choice(LENGTHS[task])))
    sentence = narrate(rng, [rng.choice(operation.phrases) for operation in operations])
    return TextRequest(words, operations, f"{LEAD[task]} {sentence}: {' '.join(words)}")


def read(text: str) -> TextRequest | None:
    """Parses the request from an instruction; None for a text that this family did not write."""
    match = _TEXT.fullmatch(text.strip())
    phrases = understand(match[1]) if match else None
    if phrases is None or not all(phrase in BY_PHRASE for phrase in phrases):
        return None
    return TextRequest(tuple(match[2].split()), tuple(BY_PHRASE[phrase] for phrase in phrases), text.strip())


def row(task: str, index: int, request: TextRequest) -> dict[str, Any]:
    """The request as an item of the real benchmark's file, with the baseline's answer to compare with."""
    output = _baseline(Random(f"baseline/{task}/{index}"), request)
    if task == "evol_instruct":
        return {"prompt": request.text, "generated_text": output}
    return {"dataset": "micro", "instruction": request.text, "output": output, "generator": "micro_baseline"}


def _baseline(rng: Random, request: TextRequest) -> str:
    """A response that is right about half of the time, and otherwise mistakes one step for another."""
    operations = list(request.operations)
    if rng.random() >= BASELINE_RIGHT:
        while work(request.words, operations)[-1] == request.lines[-1]:
            operations[rng.randrange(len(operations))] = rng.choice(STEPS)
    return "\n".join(work(request.words, operations))


def final_answer(text: str) -> str | None:
    """What follows ``Answer:`` on the last line that has it, or None."""
    answers = re.findall(r"^Answer:(.*)$", text, flags=re.MULTILINE)
    return " ".join(answers[-1].split()) if answers else None


def solved(meta: Mapping[str, Any], text: str) -> bool:
    """Whether the final answer of ``text`` is correct."""
    return final_answer(text) == meta["answer"]


def check_step(meta: Mapping[str, Any], done: list[str], line: str) -> float | None:
    """Whether ``line`` follows the lines ``done``, taking the words they reached for granted.

    None where ``done`` ends in something unreadable.
    """
    request = read(meta["instruction"])
    if request is None:
        return None
    words = list(request.words)
    if done:
        label, colon, rest = done[-1].partition(": ")
        if not colon or not rest:
            return None
        if label == "Answer":
            return float(not line)
        words = rest.split()
    if len(done) >= len(request.operations):
        return float(line == f"Answer: {' '.join(words)}")
    return float(line == work(words, [request.operations[len(done)]])[0])
