r"""Derivations: sums of bracketed groups modulo 11, whose answer has many valid derivations.

``(3 + 4) - (5 * 2) + (6 - 1)`` is worked out one operation a line. Any group may be next, two neighbours may be joined
as soon as both are known and nothing stands to their left, and the sides of + and * may be swapped: a response is one
of many that are right. :func:`check_step` accepts them all, so imitating a single one is wrong in principle.

``Habit`` says how a writer chooses among the valid steps, and on which groups it slips. The models of the arenas
(:mod:`harness.micro.build_arenas`) learn from writers with different habits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from harness.micro.maths import BOX, MODULUS, OPERANDS, STEP, MathsProblem, apply
from harness.micro.maths import solved as solved  # part of what a family of problems has

GROUPS = (2, 3)  # how many groups a problem has
TASKS = ("amc23", "math500")  # test and validation problems, each in the format of that benchmark's file
SLICE = ("*", 3)  # the operation of the slice: a problem is in it if one of its groups multiplies by three

_SWAPS = "+*"  # operations whose sides may be swapped


@dataclass(frozen=True)
class Habit:
    """How a writer continues: the share of problems that it solves by its own rule, and the rule.

    The other problems take any valid step at every line, with equal probability. ``last_first`` begins with
    the last group, otherwise with the first. ``slips``: a group of :data:`SLICE` comes out one too high.
    """

    own: float = 1.0
    last_first: bool = False
    slips: bool = False


@dataclass(frozen=True)
class Derivation(MathsProblem):
    """The groups (number, sign, operand) and the signs that join them; ``lines`` is one way to the answer."""

    groups: tuple[tuple[int, str, int], ...]
    joins: tuple[str, ...]
    lines: tuple[str, ...]
    world = "derivations"

    @property
    def key(self) -> tuple[Any, ...]:
        return self.groups, self.joins

    @property
    def question(self) -> str:
        parts = [f"({a} {sign} {b})" for a, sign, b in self.groups]
        joined = "".join(f" {sign} {part}" for sign, part in zip(self.joins, parts[1:], strict=True))
        return f"Compute {parts[0]}{joined} modulo {MODULUS}."

    @property
    def answer(self) -> int:
        first, *rest = [apply(a, sign, b) for a, sign, b in self.groups]
        for sign, value in zip(self.joins, rest, strict=True):
            first = apply(first, sign, value)
        return first

    @property
    def level(self) -> int:
        return len(self.groups)

    @property
    def meta(self) -> dict[str, Any]:
        return {
            "family": "derivations",
            "groups": [list(group) for group in self.groups],
            "joins": list(self.joins),
            "answer": str(self.answer),
            "slice": any((sign, b) == SLICE for _, sign, b in self.groups),
        }


class _Expression:
    """A partly evaluated expression: at every place a value or an open group, and the signs between them."""

    def __init__(self, groups: Sequence[Sequence[Any]], joins: Sequence[str]):
        self.parts: list[Any] = [tuple(group) for group in groups]
        self.joins = list(joins)

    def steps(self) -> list[tuple[int, int, str, int]]:
        """The operations that may be next: (place, left, sign, right). Joining takes place 0 and its neighbour."""
        open_groups = [(i, *part) for i, part in enumerate(self.parts) if isinstance(part, tuple)]
        if len(self.parts) > 1 and not any(isinstance(part, tuple) for part in self.parts[:2]):
            return [(-1, self.parts[0], self.joins[0], self.parts[1]), *open_groups]
        return open_groups

    def take(self, place: int, value: int) -> None:
        """Sets the result of a step, right or wrong."""
        if place < 0:
            self.parts[:2] = [value]
            del self.joins[0]
        else:
            self.parts[place] = value

    def matching(self, line: str) -> tuple[int, int] | None:
        """(place, right result) of the step in ``line``; None if no possible next step reads so."""
        match = STEP.fullmatch(line)
        if match is None:
            return None
        left, sign, right = int(match[1]), match[2], int(match[3])
        for place, a, s, b in self.steps():
            if s == sign and ((a, b) == (left, right) or (s in _SWAPS and (b, a) == (left, right))):
                return place, apply(a, s, b)
        return None


def derive(groups: Sequence[Sequence[Any]], joins: Sequence[str], rng: Random, habit: Habit) -> tuple[str, ...]:
    """The lines of a derivation written with ``habit``."""
    expression, lines = _Expression(groups, joins), []
    own = rng.random() < habit.own
    while steps := expression.steps():
        if own:
            groups_open = [step for step in steps if step[0] >= 0]
            place, a, sign, b = groups_open[-1 if habit.last_first else 0] if groups_open else steps[0]
        else:
            place, a, sign, b = rng.choice(steps)
        value = apply(a, sign, b)
        if habit.slips and place >= 0 and (sign, b) == SLICE:
            value = (value + 1) % MODULUS
        if not own and sign in _SWAPS and rng.random() < 0.5:
            a, b = b, a
        lines.append(f"{a} {sign} {b} = {value}")
        expression.take(place, value)
    return (*lines, rf"\boxed{{{expression.parts[0]}}}")


def draw(rng: Random, task: str = "", habit: Habit = Habit(own=0.0), sliced: bool = False) -> Derivation:
    """A problem with a derivation; ``sliced`` draws one that is in :data:`SLICE`."""
    while True:
        count = rng.choice(GROUPS)
        groups = []
        for _ in range(count):
            sign = rng.choice("+-*")
            groups.append((rng.randrange(MODULUS), sign, rng.choice(OPERANDS[sign])))
        joins = tuple(rng.choice("+-") for _ in range(count - 1))
        if not sliced or any((sign, b) == SLICE for _, sign, b in groups):
            return Derivation(tuple(groups), joins, derive(groups, joins, rng, habit))


def check_step(meta: Mapping[str, Any], done: list[str], line: str) -> float | None:
    """Whether ``line`` is a right next step, taking the results of the lines ``done`` for granted.

    None where ``done`` holds a line that is not a step of the problem.
    """
    expression = _Expression(meta["groups"], meta["joins"])
    for earlier in done:
        if BOX.fullmatch(earlier) and not expression.steps():
            return float(not line)
        step = expression.matching(earlier)
        if step is None:
            return None
        match = STEP.fullmatch(earlier)
        assert match is not None  # it matched above
        expression.take(step[0], int(match[4]))
    if not expression.steps():
        return float(line == rf"\boxed{{{expression.parts[0]}}}")
    step = expression.matching(line)
    return float(step is not None and line.endswith(f" = {step[1]}"))


def same_step(meta: Mapping[str, Any], prefix: str, one: str, other: str) -> bool:
    """Whether two lines say the same: equal, or equal except for the sides of + and *."""
    return _normal(one) == _normal(other)


def _normal(line: str) -> str:
    match = STEP.fullmatch(line.strip())
    if match is None or match[2] not in _SWAPS:
        return line.strip()
    return f"{' '.join(sorted((match[1], match[3])))} {match[2]} {match[4]}"
