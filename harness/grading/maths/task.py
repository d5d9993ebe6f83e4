"""Maths benchmarks: reference answers, and the grading that all maths tasks share.

A :class:`~harness.grading.maths.readings.Reading`, chosen by the protocol, defines which part of a text is the answer
and how it is compared; by default the last box, compared exactly. Plain numbers are compared here, everything else in
worker processes by :mod:`harness.grading.maths.equal`.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, ClassVar

from harness.errors import BadInput
from harness.grading.maths.answer import literal, read
from harness.grading.maths.extract import as_lm_eval_compares, last_boxes
from harness.grading.maths.notation import clean
from harness.grading.maths.pool import CPU_LIMIT_S, MEMORY_LIMIT_BYTES, shared_pool
from harness.grading.maths.readings import BOX, QWEN25, Reading
from harness.metrics import majority
from harness.task import Protocol, Task
from harness.types import Completion, Decoding, Problem, Prompt, Verdict

SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
DECODING = Decoding(max_new_tokens=2048, stop=("\n\nProblem:",))
LONGEST_ANSWER = 2000  # characters; the longest reference answer of the shipped benchmarks has about 200
UNREADABLE = "not readable, the parser failed with "
FAILED_PARSER = re.compile(rf"\({UNREADABLE}(\w+)\)$")


@dataclass(frozen=True)
class Gold:
    """A reference answer in LaTeX.

    ``several``: commas separate answers (otherwise ``1,000`` is a number). ``interval``: ``(a,b)`` is an open
    interval, not a pair. ``unit`` applies if the text names none; ``tolerance`` is absolute.
    """

    text: str
    several: bool = False
    interval: bool = False
    unit: str = ""
    tolerance: float | None = None


@dataclass(frozen=True)
class Judged:
    """One graded text. ``extracted`` is None if the text has no answer; ``error``: no verdict was reached."""

    correct: bool
    extracted: str | None
    reason: str
    error: bool = False


def prompt(problem: str) -> Prompt:
    """Qwen2.5-Math's prompt ``qwen25-math-cot``: the instruction as system turn, the problem as user turn."""
    return Prompt(system=SYSTEM, user=problem, plain=f"Problem: {problem}\nSolution:\n")


def grade(golds: Sequence[Gold], texts: Sequence[str], reading: Reading = BOX) -> list[Judged]:
    """Grades each text against its reference answer, in order. Raises RunFailed if math-verify does not start."""
    return judge(golds, [_extracted(gold, text, reading) for gold, text in zip(golds, texts, strict=True)], reading)


def _extracted(gold: Gold, text: str, reading: Reading) -> str | None:
    """The answer of a text; if the reference has several parts, all boxes listed by its last sentence."""
    answer = reading.extract(text)
    if not reading.lists or answer is None or len(answer) > LONGEST_ANSWER:
        return answer
    # A list of boxes counts only for a reference of several parts, and only if the last box alone is one value.
    listed = last_boxes(text)
    several = listed is not None and read(clean(gold.text)).kind != "value" and read(clean(answer)).kind == "value"
    return listed if several else answer


def judge(golds: Sequence[Gold], answers: Sequence[str | None], reading: Reading = BOX) -> list[Judged]:
    """Grades each extracted answer against its reference. Raises RunFailed if math-verify does not start."""
    # Decide plain numbers here; send the rest to the worker processes in one batch.
    judged = [_at_once(gold, answer, reading) for gold, answer in zip(golds, answers, strict=True)]
    open_ = [i for i, verdict in enumerate(judged) if verdict is None]
    comparisons = [(dataclasses.asdict(golds[i]) | {"rules": reading.rules}, answers[i]) for i in open_]
    for i, reply in zip(open_, shared_pool().compare(comparisons), strict=True):
        judged[i] = _from_reply(golds[i], answers[i], reply)
    return judged


def _at_once(gold: Gold, answer: str | None, reading: Reading) -> Judged | None:
    """The verdict if the answer can be compared without a worker, else None."""
    if answer is None:
        return Judged(False, None, reading.nothing)
    if not answer and not reading.rules.startswith("qwen25"):  # its rules strip "east" to nothing on both sides
        return Judged(False, "", "the answer is empty")
    if len(answer) > LONGEST_ANSWER:
        return Judged(False, answer[:LONGEST_ANSWER], f"the answer is longer than {LONGEST_ANSWER} characters")
    if reading.rules == "lm-eval":
        return _verdict(gold, answer, as_lm_eval_compares(answer) == as_lm_eval_compares(gold.text))
    # Two plain numbers need no worker, unless a unit, a tolerance or other rules apply.
    gold_number, answer_number = literal(gold.text), literal(answer)
    if gold_number is None or answer_number is None or gold.unit or gold.tolerance is not None or reading.rules:
        return None
    return _verdict(gold, answer, gold_number == answer_number)


def _verdict(gold: Gold, answer: str, correct: bool, note: str = "") -> Judged:
    return Judged(correct, answer, f"{'equals' if correct else 'is not'} {gold.text}{note}")


def _from_reply(gold: Gold, answer: str, reply: Mapping[str, Any]) -> Judged:
    if reply.get("died") == "time":
        return Judged(False, answer, f"not compared within {CPU_LIMIT_S:g} s of CPU time", error=True)
    if "died" in reply:
        return Judged(False, answer, "the comparison crashed or ran out of memory, twice", error=True)
    note = f" ({UNREADABLE}{reply['unreadable']})" if "unreadable" in reply else ""
    return _verdict(gold, answer, reply["equal"], note)


def equivalence_classes(answers: Sequence[str | None], reading: Reading = BOX) -> list[int | None]:
    """The equivalence class of each extracted answer, for maj@k, numbered by first appearance; None for no answer."""
    # Compare each distinct answer with one representative of every class so far.
    representatives: list[str] = []
    numbers: dict[str, int] = {}
    for answer in dict.fromkeys(a for a in answers if a is not None):
        same = [
            j.correct for j in judge([Gold(text) for text in representatives], [answer] * len(representatives), reading)
        ]
        numbers[answer] = same.index(True) if True in same else len(representatives)
        if True not in same:
            representatives.append(answer)
    return [None if answer is None else numbers[answer] for answer in answers]


class MathsTask(Task):
    """A benchmark whose problems have a :class:`Gold`. A task file states its data and parses its rows."""

    family: ClassVar[str] = "maths"
    asks_through_lm_eval = extracts = True
    known_wrong: ClassVar[str] = "maths"
    metric: ClassVar[str] = "accuracy"
    grades_aside: ClassVar[bool] = True  # in worker processes
    grader: ClassVar[str] = "math-verify"
    decoding: ClassVar[Decoding] = DECODING
    reading: ClassVar[Reading] = BOX
    protocols: ClassVar[Mapping[str, Protocol]] = {
        "strict": Protocol("the task's own reading by name: an answer stands where it was asked for, or is none"),
        "qwen25-math": Protocol(
            "Qwen2.5-Math's prompt qwen25-math-cot, greedy, read as its grader reads (arXiv 2409.12122): the last box, "
            "else what follows 'the answer is', else the last number; within a relative 1e-4, percent or not",
            {"reading": QWEN25},
            version="3",
        ),
        "avg32": Protocol(
            "mean of 32 samples at temperature 0.6, top-p 0.95, with room for long reasoning",
            {"decoding": dataclasses.replace(DECODING, temperature=0.6, top_p=0.95, max_new_tokens=32768, samples=32)},
            version="2",
        ),
    }

    def __init_subclass__(cls, **named: Any):
        """Copies the descriptions of the reading to the task, whose card shows them."""
        super().__init_subclass__(**named)
        cls.extractor, cls.equivalence = cls.reading.extractor, cls.reading.equivalence

    def grade(self, problem: Problem, text: str) -> Verdict:
        return self.grade_all([Completion(problem.id, 0, text, tokens=0, finish="stop")])[0]

    def grade_all(self, completions: Sequence[Completion]) -> list[Verdict]:
        golds = {problem.id: problem.reference for problem in self.items}
        unknown = sorted({c.problem_id for c in completions} - set(golds))
        if unknown:
            raise BadInput(f"{self.name} has no problem {unknown[0]!r}")
        judged = grade([golds[c.problem_id] for c in completions], [c.text for c in completions], self.reading)
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
            "reading": self.reading.name,
        }

    def measures(self, graded: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """avg@k, pass@k and maj@k if each problem has several samples; ``unreadable`` counts parser errors by name."""
        figures = super().measures(graded)
        if figures:
            figures[f"maj@{figures['samples']}"] = majority(graded, partial(equivalence_classes, reading=self.reading))
        if failed := _parser_failures(graded):
            figures["unreadable"] = failed
        return figures

    def remarks(self, graded: Sequence[Mapping[str, Any]]) -> list[str]:
        """A warning with the number of answers graded wrong because the parser failed."""
        failed = _parser_failures(graded)
        names = ", ".join(f"{name}: {count}" if len(failed) > 1 else name for name, count in failed.items())
        return (
            [f"{sum(failed.values())} of {len(graded)} answers not readable because the parser failed ({names})"]
            if failed
            else []
        )

    def gold_completion(self, problem: Problem) -> str:
        """A completion with the reference answer, as a model would write it, for ``harness check``."""
        return f"The answer is $\\boxed{{{problem.reference.text}}}$."

    def field(self, row: Mapping[str, Any], key: str, index: int) -> Any:
        """``row[key]``. Raises BadInput with the file and the row if it is missing."""
        if row.get(key) is None:
            raise BadInput(f"{self.data.source}: row {index + 1} has no {key!r}; {self.name} needs it")
        return row[key]


def _parser_failures(graded: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """The number of verdicts decided by each type of parser error."""
    matches = (FAILED_PARSER.search(row.get("reason", "")) for row in graded)
    return dict(sorted(Counter(match[1] for match in matches if match).items()))
