"""Right and wrong answers in other notations, by kind of gold, held against the maths grader.

The cases are data: ``harness/evaluation/answers/KIND.toml``, written by hand and checked by exact evaluation, never
taken from what the grader says. A file is a list of golds; each has its ``right`` answers and, by reason, its ``wrong``
ones:

    [[gold]]
    text = '\\frac{1}{2}'              # and, where they apply, several, interval, unit, tolerance: the fields of a Gold
    right = ['0.5', '½']
    [gold.wrong]
    'the reciprocal' = ['2']

An answer is put into a box, the way that a model writes it. With ``whole = true`` above the golds it is a text with
boxes of its own; with ``frames`` each answer stands in each frame in place of the ``@``.

    python -m harness.evaluation.notations > results/grading/notations.md
"""

from __future__ import annotations

import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.grading.maths.task import Gold, grade
from harness.task import Task
from harness.types import Completion, Problem, Prompt

FOLDER = Path(__file__).parent / "answers"
RULES = ("several", "interval", "unit", "tolerance")
CHUNK = 128  # cases graded between two signs of life
THROUGH_A_TASK = 10  # every tenth case also takes the way of a whole task

Progress = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class Case:
    """One answer as a completion (``text``) and its verdict. ``why``: the reason that a refused one is wrong."""

    kind: str
    gold: Gold
    answer: str
    text: str
    right: bool
    why: str = ""

    @property
    def must(self) -> str:
        return "pass" if self.right else "fail"

    @property
    def words(self) -> str:
        """The case in one line, without its verdict."""
        why = f" ({self.why})" if self.why else ""
        return f"{flat(self.answer)} for {flat(self.gold.text)}{why}"


@dataclass
class Counts:
    """The cases of one kind and how many of them the grader got right."""

    accepted: int = 0
    accepted_right: int = 0
    refused: int = 0
    refused_right: int = 0
    failures: list[tuple[Case, str]] = field(default_factory=list)

    def add(self, case: Case, correct: bool, reason: str, error: bool = False) -> None:
        """Counts one verdict. With ``error`` none was reached, which is right for no case."""
        good = correct == case.right and not error
        if case.right:
            self.accepted, self.accepted_right = self.accepted + 1, self.accepted_right + good
        else:
            self.refused, self.refused_right = self.refused + 1, self.refused_right + good
        if not good:
            self.failures.append((case, reason))


@cache
def cases(folder: Path = FOLDER) -> tuple[Case, ...]:
    """Every case of the suite, in the order of the files. Raises BadInput for a file that cannot be read so."""
    return tuple(case for path in sorted(folder.glob("*.toml")) for case in _read(path))


def _read(path: Path) -> Iterator[Case]:
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not readable as TOML ({error})") from None
    _only(path, table, {"gold", "whole", "frames"})
    written: set[tuple[Gold, str]] = set()
    if not table.get("gold"):
        raise BadInput(f"{path}: no [[gold]] in it")
    for number, entry in enumerate(table["gold"], 1):
        _only(path, entry, {"text", "right", "wrong", *RULES})
        if missing := [key for key in ("text", "right", "wrong") if key not in entry]:
            raise BadInput(f"{path}: gold {number} has no {missing[0]!r}")
        gold = Gold(entry["text"], **{rule: entry[rule] for rule in RULES if rule in entry})
        stated = [(True, "", answer) for answer in entry["right"]]
        stated += [(False, why, answer) for why, answers in entry["wrong"].items() for answer in answers]
        for right, why, answer in stated:
            # A case that stands there twice would be counted twice, or contradict itself.
            if (gold, answer) in written:
                raise BadInput(f"{path}: {answer!r} stands twice under the gold {gold.text!r}; take one out")
            written.add((gold, answer))
            for frame in table.get("frames", ["@"]):
                framed = frame.replace("@", answer)
                text = framed if table.get("whole") else f"So the answer is $\\boxed{{{framed}}}$."
                yield Case(path.stem, gold, framed, text, right, why)


def _only(path: Path, table: Mapping[str, Any], known: set[str]) -> None:
    if strangers := sorted(set(table) - known):
        raise BadInput(f"{path}: unknown key {strangers[0]!r}; known are {', '.join(sorted(known))}")


def held_against_grader(chosen: Sequence[Case], progress: Progress) -> dict[str, Counts]:
    """Each case through :func:`harness.grading.maths.task.grade`, which every maths task calls; counts by kind."""
    found: dict[str, Counts] = {}
    for start in range(0, len(chosen), CHUNK):
        piece = chosen[start : start + CHUNK]
        progress("check notations", start, len(chosen), piece[0].kind)
        for case, judged in zip(piece, grade([c.gold for c in piece], [c.text for c in piece]), strict=True):
            found.setdefault(case.kind, Counts()).add(case, judged.correct, judged.reason, judged.error)
    progress("check notations", len(chosen), len(chosen), "")
    return found


def held_against_task(task: Task, chosen: Iterable[Case]) -> list[tuple[Case, str]]:
    """The cases that come out wrong of ``task``: its own problem takes the gold, its ``grade_all`` the text.

    What the task adds to the grader (its protocol, how it reads a text) takes part.
    """
    chosen = list(chosen)
    template: Problem = task.items[0] if task.items else Problem("", Prompt("", ""), None)
    kept, task.items = task.items, [replace(template, id=str(i), reference=c.gold) for i, c in enumerate(chosen)]
    try:
        verdicts = task.grade_all([Completion(str(i), 0, c.text, 0, "stop") for i, c in enumerate(chosen)])
    finally:
        task.items = kept
    return [(c, v.reason) for c, v in zip(chosen, verdicts, strict=True) if v.error or bool(v.score) != c.right]


def sample(every: Sequence[Case]) -> list[Case]:
    """One case in :data:`THROUGH_A_TASK`, accepted and refused ones of every kind among them."""
    accepted, refused = ([c for c in every if c.right is right] for right in (True, False))
    return accepted[::THROUGH_A_TASK] + refused[::THROUGH_A_TASK]


def flat(text: str) -> str:
    """``text`` in one line."""
    return " ".join(text.split())


def page(found: Mapping[str, Counts], seconds: float) -> str:
    """The table of kinds, as Markdown."""
    lines = [
        "# Right answers in other notations",
        "",
        f"Made by `python -m harness.evaluation.notations > results/grading/notations.md` ({seconds:.0f} s).",
        "Each case is a gold, an answer in a box and the right verdict. They stand in `harness/evaluation/answers/`,",
        "one file a kind, and `harness check` runs them. An answer to be accepted is the gold in another notation; one",
        "to be refused is wrong for the reason stated beside it.",
        "",
        "| kind | to be accepted | accepted | to be refused | refused |",
        "|---|---:|---:|---:|---:|",
    ]
    total = Counts()
    for kind, c in found.items():
        lines.append(f"| {kind} | {c.accepted:,} | {c.accepted_right:,} | {c.refused:,} | {c.refused_right:,} |")
        total.accepted, total.accepted_right = total.accepted + c.accepted, total.accepted_right + c.accepted_right
        total.refused, total.refused_right = total.refused + c.refused, total.refused_right + c.refused_right
    lines.append(
        f"| **all** | {total.accepted:,} | {total.accepted_right:,} | {total.refused:,} | {total.refused_right:,} |"
    )
    failures = [
        f"{case.kind}: {case.words} must {case.must}: {flat(reason)}"
        for c in found.values()
        for case, reason in c.failures
    ]
    lines += [
        "",
        f"Graded wrongly: {len(failures) or 'none'}.",
        *(["", "```text", *failures, "```"] if failures else []),
    ]
    return "\n".join(lines)


def main() -> int:
    from harness.progress import Reporter

    began = time.monotonic()
    with Reporter() as reporter:
        found = held_against_grader(cases(), reporter.progress)
    print(page(found, time.monotonic() - began))
    return int(any(c.failures for c in found.values()))


if __name__ == "__main__":
    sys.exit(main())
