"""Maths benchmarks: what an answer is, and the grading that all maths tasks share.

An answer stands in a box, or in the form that the protocol states (``#### 9`` for GSM8K). A number that
merely occurs in the text is none. Plain numbers are compared here, exactly; everything else in worker
processes by :mod:`harness.grading.maths.equal`.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, ClassVar

from harness.errors import BadInput
from harness.grading.maths.answer import last_box, literal
from harness.grading.maths.pool import CPU_LIMIT_S, MEMORY_LIMIT_BYTES, shared_pool
from harness.repeats import majority
from harness.task import Protocol, Task
from harness.types import Completion, Decoding, Problem, Prompt, Verdict

SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
DECODING = Decoding(max_new_tokens=2048, stop=("\n\nProblem:",))
LONGEST_ANSWER = 2000  # characters; the longest gold of the shipped benchmarks has about 200
HASHES = re.compile(r"####[ \t]*([^\n]*)")


@dataclass(frozen=True)
class Gold:
    """A reference answer in LaTeX.

    ``several``: its commas separate answers (else ``1,000`` is a number). ``interval``: ``(a,b)`` is an open
    interval, not a pair. ``unit`` is meant where an answer names none; ``tolerance`` is absolute.
    """

    text: str
    several: bool = False
    interval: bool = False
    unit: str = ""
    tolerance: float | None = None


@dataclass(frozen=True)
class Judged:
    """One graded text. ``extracted`` is None where it holds no answer; ``error``: no verdict was reached."""

    correct: bool
    extracted: str | None
    reason: str
    error: bool = False


def prompt(problem: str) -> Prompt:
    """Qwen2.5-Math's ``qwen25-math-cot``: the instruction is the system turn, the problem the user's."""
    return Prompt(system=SYSTEM, user=problem, plain=f"Problem: {problem}\nSolution:\n")


def extract(text: str, hashes: bool = False) -> str | None:
    """The last box of ``text``; with ``hashes`` what stands after the last ``####``, if that comes later."""
    if not hashes:
        return last_box(text)
    marks = list(HASHES.finditer(text))
    boxed = last_box(text[marks[-1].start() :] if marks else text)
    return boxed if boxed is not None or not marks else marks[-1][1].strip()


def grade(golds: Sequence[Gold], texts: Sequence[str], hashes: bool = False, in_text: bool = True) -> list[Judged]:
    """Each text held against its gold, in order; with ``in_text``, ``\\text{10 cm}`` is read as ``10\\text{ cm}``.

    Raises RunFailed where math-verify does not start.
    """
    answers = [extract(text, hashes) for text in texts]
    judged = [_at_once(gold, answer) for gold, answer in zip(golds, answers, strict=True)]
    open_ = [i for i, verdict in enumerate(judged) if verdict is None]
    replies = shared_pool().compare([(dataclasses.asdict(golds[i]) | {"in_text": in_text}, answers[i]) for i in open_])
    for i, reply in zip(open_, replies, strict=True):
        judged[i] = _from_reply(golds[i], answers[i], reply)
    return judged


def _at_once(gold: Gold, answer: str | None) -> Judged | None:
    """The verdict where no mathematics is needed, else None."""
    if answer is None:
        return Judged(False, None, "no boxed answer")
    if not answer:
        return Judged(False, "", "the answer is empty")
    if len(answer) > LONGEST_ANSWER:
        return Judged(False, answer[:LONGEST_ANSWER], f"the answer is longer than {LONGEST_ANSWER} characters")
    wanted, given = literal(gold.text), literal(answer)
    if wanted is None or given is None or gold.unit or gold.tolerance is not None:
        return None
    return _verdict(gold, answer, wanted == given)


def _verdict(gold: Gold, answer: str, correct: bool, note: str = "") -> Judged:
    return Judged(correct, answer, f"{'equals' if correct else 'is not'} {gold.text}{note}")


def _from_reply(gold: Gold, answer: str, reply: Mapping[str, Any]) -> Judged:
    if reply.get("died") == "time":
        return Judged(False, answer, f"not compared within {CPU_LIMIT_S:g} s of CPU time", error=True)
    if "died" in reply:
        return Judged(False, answer, "the comparison crashed or ran out of memory, twice", error=True)
    note = f" (not readable: {reply['unreadable']})" if "unreadable" in reply else ""
    return _verdict(gold, answer, reply["equal"], note)


def equivalence_classes(answers: Sequence[str | None], in_text: bool = True) -> list[int | None]:
    """For maj@k: the class of each extracted answer, numbered by first appearance; None has none."""
    representatives: list[str] = []
    numbers: dict[str, int] = {}
    for answer in dict.fromkeys(a for a in answers if a is not None):
        boxed = [f"\\boxed{{{answer}}}"] * len(representatives)
        same = [j.correct for j in grade([Gold(text) for text in representatives], boxed, in_text=in_text)]
        numbers[answer] = same.index(True) if True in same else len(representatives)
        if True not in same:
            representatives.append(answer)
    return [None if answer is None else numbers[answer] for answer in answers]


class MathsTask(Task):
    """A benchmark whose problems carry a :class:`Gold`. A task file states its data and reads its rows."""

    family: ClassVar[str] = "maths"
    metric: ClassVar[str] = "accuracy"
    grades_aside: ClassVar[bool] = True  # in processes of its own
    grader: ClassVar[str] = "math-verify"
    decoding: ClassVar[Decoding] = DECODING
    extractor: ClassVar[str] = "the last \\boxed{}; a number outside is no answer"
    equivalence: ClassVar[str] = "equal numbers, or equal by math-verify; order, unit and tolerance as in the gold"
    protocols: ClassVar[Mapping[str, Protocol]] = {
        "qwen25-math": Protocol(
            "Qwen2.5-Math's qwen25-math-cot (arXiv 2409.12122): the box asked for in the system turn, greedy",
            {"decoding": DECODING},
        ),
        "avg32": Protocol(
            "mean of 32 samples at temperature 0.6, top-p 0.95, with room for long reasoning",
            {"decoding": dataclasses.replace(DECODING, temperature=0.6, top_p=0.95, max_new_tokens=32768, samples=32)},
        ),
    }
    hashes: ClassVar[bool] = False  # whether "#### 9" gives an answer, besides a box
    in_text: ClassVar[bool] = True  # whether \text{10 cm} is a number and its unit

    def grade(self, problem: Problem, text: str) -> Verdict:
        return self.grade_all([Completion(problem.id, 0, text, tokens=0, finish="stop")])[0]

    def grade_all(self, completions: Sequence[Completion]) -> list[Verdict]:
        golds = {problem.id: problem.reference for problem in self.items}
        strangers = sorted({c.problem_id for c in completions} - set(golds))
        if strangers:
            raise BadInput(f"{self.name} has no problem {strangers[0]!r}")
        judged = grade(
            [golds[c.problem_id] for c in completions], [c.text for c in completions], self.hashes, self.in_text
        )
        return [
            Verdict(c.problem_id, c.sample, float(j.correct), j.reason, j.extracted, j.error)
            for c, j in zip(completions, judged, strict=True)
        ]

    def grader_identity(self) -> dict[str, Any]:
        return super().grader_identity() | {
            "version": version("math-verify"),
            "parser": version("latex2sympy2_extended"),
            "cpu_limit_s": CPU_LIMIT_S,
            "memory_limit_bytes": MEMORY_LIMIT_BYTES,
        }

    def measures(self, graded: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """avg@k, pass@k and maj@k where each problem has several samples."""
        found = super().measures(graded)
        if found:
            found[f"maj@{found['samples']}"] = majority(graded, partial(equivalence_classes, in_text=self.in_text))
        return found

    def gold_completion(self, problem: Problem) -> str:
        """The completion of a model that answers as the gold does, for the self-test of the grading."""
        return f"The answer is $\\boxed{{{problem.reference.text}}}$."

    def field(self, row: Mapping[str, Any], key: str, index: int) -> Any:
        """``row[key]``. Raises BadInput naming the file and the row that lacks it."""
        if row.get(key) is None:
            raise BadInput(f"{self.data.source}: row {index + 1} has no {key!r}; {self.name} needs it")
        return row[key]
