"""Checks the maths grader on right and wrong answers in other notations than the reference, by kind.

The cases are data files, ``harness/evaluation/answers/KIND.toml``, written by hand and verified by exact evaluation,
never generated from verdicts of the grader. A file lists reference answers (golds), each with ``right`` answers and,
by reason, ``wrong`` ones:

    [[gold]]
    text = '\\frac{1}{2}'              # optional: several, interval, unit, tolerance, the fields of a Gold
    right = ['0.5', '½']
    [gold.wrong]
    'the reciprocal' = ['2']

Each answer is put into a box, as a model writes it. With ``whole = true`` at the top of the file it is a whole text
with its own boxes; with ``frames`` each answer replaces the ``@`` of each frame.

    python -m harness.evaluation.notations > results/grading/notations.md
"""

from __future__ import annotations

import functools
import sys
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.grading.maths.task import Gold, grade
from harness.task import Task
from harness.types import Completion, Problem, Prompt

FOLDER = Path(__file__).parent / "answers"
RULES = ("several", "interval", "unit", "tolerance")
CHUNK = 128  # cases graded between progress updates
THROUGH_A_TASK = 10  # every tenth case is also graded by a whole task

Progress = Callable[[int, int, str], None]  # done, total, details


@dataclass(frozen=True)
class Case:
    """One answer as a completion (``text``) with its right verdict. ``why``: the reason that a wrong one is wrong."""

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
    def description(self) -> str:
        """The case on one line, without its verdict."""
        why = f" ({self.why})" if self.why else ""
        return f"{flat(self.answer)} for {flat(self.gold.text)}{why}"


@dataclass
class Counts:
    """The number of cases of one kind, and of those that the grader decided correctly."""

    accepted: int = 0
    accepted_right: int = 0
    refused: int = 0
    refused_right: int = 0
    failures: list[tuple[Case, str]] = field(default_factory=list)

    def add(self, case: Case, correct: bool, reason: str, error: bool = False) -> None:
        """Counts one verdict. With ``error`` none was reached, which is always a failure."""
        good = correct == case.right and not error
        if case.right:
            self.accepted, self.accepted_right = self.accepted + 1, self.accepted_right + good
        else:
            self.refused, self.refused_right = self.refused + 1, self.refused_right + good
        if not good:
            self.failures.append((case, reason))


@functools.cache
def cases(folder: Path = FOLDER) -> tuple[Case, ...]:
    """Every case of the suite, in the order of the files. Raises BadInput for a malformed file."""
    return tuple(case for path in sorted(folder.glob("*.toml")) for case in _read(path))


def _read(path: Path) -> Iterator[Case]:
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: not readable as TOML ({error})") from None
    _only(path, table, {"gold", "whole", "frames"})
    listed: set[tuple[Gold, str]] = set()
    if not table.get("gold"):
        raise BadInput(f"{path}: no [[gold]] in it")
    for number, entry in enumerate(table["gold"], 1):
        _only(path, entry, {"text", "right", "wrong", *RULES})
        if missing := [key for key in ("text", "right", "wrong") if key not in entry]:
            raise BadInput(f"{path}: gold {number} has no {missing[0]!r}")
        gold = Gold(entry["text"], **{rule: entry[rule] for rule in RULES if rule in entry})
        # Right answers first, then wrong ones with their reason.
        stated = [(True, "", answer) for answer in entry["right"]]
        stated += [(False, why, answer) for why, answers in entry["wrong"].items() for answer in answers]
        for right, why, answer in stated:
            # A duplicate would be counted twice, or contradict itself.
            if (gold, answer) in listed:
                raise BadInput(f"{path}: {answer!r} is listed twice under the gold {gold.text!r}; remove one")
            listed.add((gold, answer))
            for frame in table.get("frames", ["@"]):
                framed = frame.replace("@", answer)
                text = framed if table.get("whole") else f"So the answer is $\\boxed{{{framed}}}$."
                yield Case(path.stem, gold, framed, text, right, why)


def _only(path: Path, table: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(table) - known):
        raise BadInput(f"{path}: unknown key {unknown[0]!r}; known are {', '.join(sorted(known))}")


def check_grader(chosen: Sequence[Case], progress: Progress) -> dict[str, Counts]:
    """Grades each case with :func:`harness.grading.maths.task.grade`, which every maths task uses; counts by kind."""
    counts_by_kind: dict[str, Counts] = {}
    for start in range(0, len(chosen), CHUNK):
        piece = chosen[start : start + CHUNK]
        progress(start, len(chosen), piece[0].kind)
        for case, judged in zip(piece, grade([c.gold for c in piece], [c.text for c in piece]), strict=True):
            counts_by_kind.setdefault(case.kind, Counts()).add(case, judged.correct, judged.reason, judged.error)
    progress(len(chosen), len(chosen), "")
    return counts_by_kind


def check_task(task: Task, chosen: Iterable[Case]) -> list[tuple[Case, str]]:
    """Grades the cases with ``task``, as answers to a problem with their reference; returns those decided wrongly.

    This also covers what the task adds to the grader: its protocol, and how it extracts an answer.
    """
    chosen = list(chosen)
    # Replace the problems of the task by the cases, and restore them afterwards.
    template: Problem = task.items[0] if task.items else Problem("", Prompt("", ""), None)
    own_items, task.items = task.items, [replace(template, id=str(i), reference=c.gold) for i, c in enumerate(chosen)]
    try:
        verdicts = task.grade_all([Completion(str(i), 0, c.text, 0, "stop") for i, c in enumerate(chosen)])
    finally:
        task.items = own_items
    return [(c, v.reason) for c, v in zip(chosen, verdicts, strict=True) if v.error or bool(v.score) != c.right]


def sample(every: Sequence[Case]) -> list[Case]:
    """Every :data:`THROUGH_A_TASK`-th case, of right and of wrong answers."""
    accepted, refused = ([c for c in every if c.right is right] for right in (True, False))
    return accepted[::THROUGH_A_TASK] + refused[::THROUGH_A_TASK]


def flat(text: str) -> str:
    """``text`` on one line."""
    return " ".join(text.split())


def _row(kind: str, counts: Counts) -> str:
    right = f"{counts.accepted:,} | {counts.accepted_right:,}"
    return f"| {kind} | {right} | {counts.refused:,} | {counts.refused_right:,} |"


def page(counts_by_kind: Mapping[str, Counts], seconds: float) -> str:
    """The table of kinds, as Markdown."""
    lines = [
        "# Right answers in other notations",
        "",
        f"Made by `python -m harness.evaluation.notations > results/grading/notations.md` ({seconds:.0f} s).",
        "Each case is a gold, an answer in a box and the right verdict. They stand in `harness/evaluation/answers/`,",
        "one file per kind, and `harness check` runs them. A right answer is the gold in another notation; a wrong one",
        "is wrong for the reason stated next to it.",
        "",
        "| kind | to be accepted | accepted | to be refused | refused |",
        "|---|---:|---:|---:|---:|",
    ]
    total = Counts()
    for counts in counts_by_kind.values():
        total.accepted += counts.accepted
        total.accepted_right += counts.accepted_right
        total.refused += counts.refused
        total.refused_right += counts.refused_right
    lines += [_row(kind, counts) for kind, counts in [*counts_by_kind.items(), ("**all**", total)]]
    failures = [
        f"{case.kind}: {case.description} must {case.must}: {flat(reason)}"
        for counts in counts_by_kind.values()
        for case, reason in counts.failures
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
        counts_by_kind = check_grader(cases(), functools.partial(reporter.progress, "check notations"))
    print(page(counts_by_kind, time.monotonic() - began))
    return int(any(c.failures for c in counts_by_kind.values()))


if __name__ == "__main__":
    sys.exit(main())
