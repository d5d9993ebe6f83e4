"""Maths answers in random notation: the cases of :mod:`harness.evaluation.notations`, framed, respelled and exchanged.

Promises: every answer gets a verdict, wrong ones stay wrong in any notation, and an answer to one gold is wrong for
another. A right answer that is refused in a new notation breaks no promise, but is listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from random import Random

from harness.evaluation.notations import Case, cases
from harness.grading.maths.task import Gold, grade
from results.scripts.grading.fuzz_families import Trial

CHUNK = 200
FRAMES = (
    "\\textcolor{red}{@}", "{\\color{blue}@}", "\\boldsymbol{@}", "\\underline{@}", "\\displaystyle{@}", "@\\tag{7}",
    "@\\tag*{}", "\\boxed{@}", "\\fbox{@}", "$@$", "\\(@\\)", "{@}", "\\,@\\,", "~@~", "@.", "\\quad @", " @ ",
    "\\text{The answer is } @", "The answer is @", "Answer: @", "\\therefore @", "@\\!", "\\left.@\\right.", "**@**",
)  # fmt: skip
# Other spellings of the same sign. Those of letters end where the command ends.
SPELLINGS = (
    ("-", "−"), (r"\\cdot(?![a-zA-Z])", "·"), (r"\\times(?![a-zA-Z])", "×"), (r"\\pi(?![a-zA-Z])", "π"),
    (r"\\infty(?![a-zA-Z])", "∞"), (r"\\leq?(?![a-zA-Z])", "≤"), (r"\\geq?(?![a-zA-Z])", "≥"),
    (r"\\neq?(?![a-zA-Z])", "≠"), (r"\\cup(?![a-zA-Z])", "∪"), (r"\\pm(?![a-zA-Z])", "±"), (r"\\in(?![a-zA-Z])", "∈"),
    (r"\^\{?\\circ\}?", "°"), (r"\^(?:2|\{2\})(?!\d)", "²"), (r"\^(?:3|\{3\})(?!\d)", "³"),
    (r"\\emptyset(?![a-zA-Z])", "∅"), (r"\\setminus(?![a-zA-Z])", "∖"), (r"\\mathbb\{R\}", "ℝ"),
    (r"\\frac(?![a-zA-Z])", r"\\dfrac"), ("\\\\left(?![a-zA-Z])", ""), ("\\\\right(?![a-zA-Z])", ""), ("≤", "<="),
    ("≥", r"\\ge "), ("°", "º"), ("(?<![!<>:])=(?!=)", " = "), (r",(?=\s)", r",\\;"),
    ("·", "×"), ("²", "^{2}"), ("π", r"\\pi "),
)  # fmt: skip
# Kinds whose golds exclude each other. Others share answers across golds: "5 apples" answers 5 and names a unit.
EXCLUSIVE = {
    "integers", "fractions", "decimals", "radicals", "constants", "complex", "sets", "tuples", "intervals", "bases",
    "times", "assignments",
}  # fmt: skip


def trials(n: int, seed: int) -> Iterator[Trial]:
    for start in range(0, n, CHUNK):
        drawn = [_draw(Random(f"{seed}/{i}")) for i in range(start, min(n, start + CHUNK))]
        judged = grade([case.gold for _, case in drawn], [case.text for _, case in drawn])
        for (kind, case), verdict in zip(drawn, judged, strict=True):
            words = f"{case.description} must {case.must}: {verdict.reason}"
            if verdict.error:
                yield Trial(kind, "no verdict", fault=words)
            elif verdict.correct and not case.right:
                yield Trial(kind, "a wrong answer passes", fault=words)
            elif case.right and not verdict.correct:
                yield Trial(kind, "a right answer is refused", note=words)
            else:
                yield Trial(kind, "accepted" if verdict.correct else "refused")


def _draw(rng: Random) -> tuple[str, Case]:
    """One trial: the name of what was done, and the case made by it."""
    plain = [case for case in cases() if case.kind not in {"boxes", "decorated"}]
    kind = rng.choice(["right, framed", "wrong, framed", "right, respelled", "wrong, respelled", "another gold's"])
    if kind == "another gold's":
        return kind, _exchanged(rng, plain)
    case = rng.choice([case for case in plain if case.right == kind.startswith("right")])
    answer = case.answer
    if kind.endswith("framed"):
        for frame in rng.sample(FRAMES, rng.randrange(1, 4)):
            answer = frame.replace("@", answer)
    else:
        for pattern, sign in rng.sample(SPELLINGS, len(SPELLINGS)):
            if rng.random() < 0.5:
                answer = re.sub(pattern, sign, answer)
    return kind, _case(case, case.gold, answer, case.right, case.why)


def _exchanged(rng: Random, plain: list[Case]) -> Case:
    """A right answer of one gold for another gold of its kind that has no answer in common with it."""
    right = [case for case in plain if case.right and case.kind in EXCLUSIVE]
    answers: dict[tuple[str, Gold], set[str]] = {}
    for case in right:
        answers.setdefault((case.kind, case.gold), {case.gold.text}).add(case.answer)
    while True:
        case = rng.choice(right)
        others = [
            gold
            for (kind, gold), theirs in answers.items()
            if kind == case.kind and gold != case.gold and not theirs & answers[case.kind, case.gold]
        ]
        if others:
            return _case(case, rng.choice(others), case.answer, False, f"an answer to {case.gold.text}")


def _case(case: Case, gold: Gold, answer: str, right: bool, why: str) -> Case:
    return Case(case.kind, gold, answer, f"So the answer is $\\boxed{{{answer}}}$.", right, why)
