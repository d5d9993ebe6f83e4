"""Arenas: small worlds in which the weights of a method could matter, each a pair of models on one kind of problem.

All three use problems of :mod:`harness.micro.derivations`. The student begins with the last group, the teacher with the
first, so that both are often right and differ.

several  the teacher is right, but where the two differ the student's step is as often valid
erring   the teacher is an earlier checkpoint of the same training: it errs at a known rate, anywhere
slice    the teacher has learned one operation wrongly, which a quarter of the problems need; the student knows it

``amc23@derivations`` holds the test problems, ``math500@derivations`` the validation problems, on which settings are
chosen. No problem is in two splits, or in the stream that the models learned from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from harness.errors import BadInput, unknown
from harness.micro import derivations, maths
from harness.types import Example

WORLD = "derivations"
WEIGHTS = Path(__file__).parent / "weights" / WORLD
SIZES = {"amc23": 300, "math500": 300, "labelled": 200, "prompts": 400}


@dataclass(frozen=True)
class Arena:
    """The folders of its models below :data:`WEIGHTS`."""

    teacher: str
    student: str


ARENAS = {
    "several": Arena("teacher", "student"),
    "erring": Arena("early", "student"),
    "slice": Arena("mistaken", "ahead"),
}
MODELS = ("teacher", "early", "mistaken", "student", "ahead")


def rows(task: str) -> list[dict[str, Any]]:
    """The problems of a task in its own file format. Raises BadInput for a task without any."""
    if task not in derivations.TASKS:
        raise BadInput(f"task {task!r} has no {WORLD} version; those that have one: {', '.join(derivations.TASKS)}")
    return [maths.row(task, i, problem) for i, problem in enumerate(_splits()[task])]


def examples(split: str) -> list[Example]:
    """The examples of a split; those of ``prompts`` have no response."""
    if split not in SIZES:
        raise unknown("split", split, SIZES)
    answered = [
        Example(f"{WORLD}/{split}/{i}", problem.prompt, problem.response, problem.meta)
        for i, problem in enumerate(_splits()[split])
    ]
    return [replace(example, response=None) for example in answered] if split == "prompts" else answered


def stream(seed: int, habit: derivations.Habit, sliced: float = 0.0) -> Iterator[Example]:
    """An endless stream of labelled examples outside all splits; ``sliced`` is the share drawn from the slice."""
    taken = {problem.key for problems in _splits().values() for problem in problems}
    rng = Random(f"{WORLD}/stream/{seed}")
    while True:
        problem = derivations.draw(rng, habit=habit, sliced=rng.random() < sliced)
        if problem.key not in taken:
            yield Example(f"{WORLD}/stream", problem.prompt, problem.response, problem.meta)


def model_path(name: str) -> Path:
    """The folder of a shipped model."""
    if name not in MODELS:
        raise unknown("model of the arenas", name, MODELS)
    return WEIGHTS / name


@cache
def _splits() -> dict[str, list[derivations.Derivation]]:
    """Split or task name -> its problems; no problem is in two of them."""
    taken: set[Any] = set()
    problems = {}
    for split, size in SIZES.items():
        fresh = _distinct(Random(f"{WORLD}/{split}"), taken)
        problems[split] = list(islice(fresh, size))
    return problems


def _distinct(rng: Random, taken: set[Any]) -> Iterator[derivations.Derivation]:
    while True:
        problem = derivations.draw(rng)
        if problem.key not in taken:
            taken.add(problem.key)
            yield problem
