"""``harness check``: the graders graded. Golds must pass, wrong answers and known traps must not.

Golds against golds show no fault of notation, for they are well written: so the maths grader is also held against
right and wrong answers in other notations (:mod:`harness.evaluation.notations`).

Run before any model is: a benchmark on which a perfect model cannot score 100 % is not worth its GPU time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from harness import registry
from harness.errors import BadInput
from harness.evaluation import evaluate, notations, published_winrates
from harness.evaluation.benchmarks import open_task
from harness.evaluation.known_answers import KnownAnswer, counts_as_right, known_answers
from harness.task import Task
from harness.types import Completion, Verdict

Progress = Callable[[str, int, int, str], None]
CHUNK = 64  # completions graded between two signs of life
NOTATIONS = "notations"  # the suite's line among the tasks
NO_GOLD = "the task states no gold completions (a method gold_completion(problem))"
NO_REPLAY = "a judge's word is not known beforehand, and HARNESS_DATA holds no recorded judgements of these items"


@dataclass
class Tally:
    """``passed`` of ``total`` known answers got the verdict that is known to be right."""

    passed: int = 0
    total: int = 0

    def add(self, passed: bool) -> None:
        self.passed += passed
        self.total += 1

    def __str__(self) -> str:
        return f"{self.passed}/{self.total}"


@dataclass
class Checked:
    """What the check of one task found. ``golds`` counts problems, ``traps`` completions that must fail."""

    task: str
    status: str = "green"  # green, failed or skipped
    reason: str = ""  # why it was skipped
    golds: Tally = field(default_factory=Tally)
    traps: Tally = field(default_factory=Tally)
    failures: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


def check(names: Sequence[str], progress: Progress) -> list[Checked]:
    """The named tasks checked, or all; a task that cannot be checked stands there as skipped, with the reason.

    Where all are asked for, the answers in other notations come first, and a real benchmark that is skipped is followed
    by its generated problems. ``notations`` among the names asks for them.
    Raises BadInput for an unknown name.
    """
    wanted = [] if names and NOTATIONS not in names else [check_notations(progress)]
    if names and not (names := [name for name in names if name != NOTATIONS]):
        return wanted
    for name in names:
        registry.find(registry.TASKS, name.partition("@")[0] if not name.endswith(".py") else name)
    found = wanted
    for name in names or [entry.name for entry in registry.entries(registry.TASKS)]:
        found.append(_check(name, progress))
        if not names and found[-1].status == "skipped" and _has_micro(name):
            found.append(_check(f"{name}@micro", progress))
    return found


def check_notations(progress: Progress) -> Checked:
    """The suite of answers in other notations: all through the grader, a sample through a whole maths task."""
    from harness.micro.world import ANY_ANSWER

    began = time.monotonic()
    checked, every = Checked(NOTATIONS), notations.cases()
    found = notations.held_against_grader(every, progress)
    counted = found.values()
    checked.golds = Tally(sum(c.accepted_right for c in counted), sum(c.accepted for c in counted))
    checked.traps = Tally(sum(c.refused_right for c in counted), sum(c.refused for c in counted))
    checked.notes = [
        f"{kind}: accepted {c.accepted_right}/{c.accepted}, refused {c.refused_right}/{c.refused}"
        for kind, c in found.items()
    ]
    wrong = [failure for c in counted for failure in c.failures]
    known = {case for case, _ in wrong}
    sample = notations.sample(every)
    aside = notations.held_against_task(open_task(ANY_ANSWER), sample)
    checked.notes.append(f"through {ANY_ANSWER}: {len(sample) - len(aside)}/{len(sample)}")
    wrong += [(case, f"{reason} (through {ANY_ANSWER})") for case, reason in aside if case not in known]
    checked.failures = [
        {"problem_id": c.kind, "kind": c.words, "must": c.must, "reason": notations.flat(reason)} for c, reason in wrong
    ]
    checked.status = "failed" if checked.failures else "green"
    checked.seconds = round(time.monotonic() - began, 1)
    return checked


def _has_micro(name: str) -> bool:
    from harness.micro.world import TASKS

    return name in TASKS


def _check(name: str, progress: Progress) -> Checked:
    began = time.monotonic()
    checked = Checked(name)
    try:
        needs = _judged(name)
        if needs:
            _replay(published_winrates.recorded(needs), checked, progress)
        else:
            grade_known(open_task(name), checked, progress)
        if not checked.golds.total:
            raise BadInput(NO_REPLAY if needs else NO_GOLD)
    except BadInput as error:
        checked.status, checked.reason = "skipped", str(error)
    if checked.failures:
        checked.status = "failed"
    checked.seconds = round(time.monotonic() - began, 1)
    return checked


def _judged(name: str) -> type[Task] | None:
    """The task called ``name`` if a judge grades it whose word is not known beforehand."""
    if name.endswith("@micro"):
        return None
    found = registry.find(registry.TASKS, name.removesuffix("@real"))
    return found if found.needs_judge else None


def grade_known(task: Task, checked: Checked, progress: Progress) -> None:
    """Every known answer through the whole grading path."""
    checked.task = task.title
    known = known_answers(task)
    if task.runs_programs and known:
        from harness.sandbox import tier

        checked.notes.append(str(tier()))
    if repairs := getattr(task, "repairs", None):
        checked.notes.append(f"{len(repairs)} malformed golds are read as repaired: {', '.join(repairs)}")
    failed: dict[str, bool] = {}
    verdicts = _verdicts(task, known, progress)
    checked.notes += task.remarks([asdict(verdict) for verdict in verdicts])
    for answer, verdict in zip(known, verdicts, strict=True):
        passed = counts_as_right(task, verdict.score) == answer.passes
        if answer.passes:
            failed[answer.problem_id] = failed.get(answer.problem_id, False) or not passed
        else:
            checked.traps.add(passed)
        if not passed:
            reason = f"{verdict.reason} (score {verdict.score:g})"
            checked.failures.append(
                {"problem_id": answer.problem_id, "kind": answer.kind, "must": _must(answer), "reason": reason}
            )
    for wrong in failed.values():
        checked.golds.add(not wrong)


def _must(answer: KnownAnswer) -> str:
    return "pass" if answer.passes else "fail"


def _verdicts(task: Task, known: Sequence[KnownAnswer], progress: Progress) -> list[Verdict]:
    samples: dict[str, int] = {}
    completions = []
    for answer in known:
        sample = samples[answer.problem_id] = samples.get(answer.problem_id, -1) + 1
        completions.append(Completion(answer.problem_id, sample, answer.text, 0, "stop"))
    verdicts: list[Verdict] = []
    for start in range(0, len(completions), CHUNK):
        progress(f"check {task.title}", start, len(completions), "")
        verdicts += evaluate.verdicts_of(task, completions[start : start + CHUNK])
    progress(f"check {task.title}", len(completions), len(completions), "")
    return verdicts


def _replay(recorded: Iterable[published_winrates.Recorded], checked: Checked, progress: Progress) -> None:
    """Published win rates out of recorded judgements."""
    for published in recorded:
        progress(f"check {checked.task}", checked.golds.total, checked.golds.total + 1, published.name)
        ours, note = published_winrates.win_rate(published)
        checked.notes.append(note)
        checked.golds.add(abs(ours - published.win_rate) <= published_winrates.TOLERANCE)
        if abs(ours - published.win_rate) > published_winrates.TOLERANCE:
            checked.failures.append(
                {"problem_id": published.name, "kind": "published win rate", "must": "pass", "reason": note}
            )


def green(found: Sequence[Checked]) -> bool:
    """Whether something was checked and nothing failed."""
    return any(c.status == "green" for c in found) and not any(c.status == "failed" for c in found)


def as_json(found: Sequence[Checked]) -> dict[str, Any]:
    return {"green": green(found), "tasks": [asdict(checked) for checked in found]}


def text(found: Sequence[Checked]) -> str:
    """A line a task, below it every failure, and a last line that says what was not checked."""
    width = max(len(checked.task) for checked in found)
    lines = []
    for c in found:
        if c.status == "skipped":
            lines.append(f"{c.task:<{width}}  skipped: {c.reason}")
            continue
        lines.append(
            f"{c.task:<{width}}  {c.status:<6}  golds {c.golds}  wrong ones refused {c.traps}  {c.seconds:g} s"
        )
        lines += [f"{'':<{width}}  {note}" for note in c.notes]
        lines += [f"{'':<{width}}  {f['problem_id']}: {f['kind']} must {f['must']}: {f['reason']}" for f in c.failures]
    skipped = [c.task for c in found if c.status == "skipped"]
    lines.append(
        ("all green" if green(found) else "not green") + (f"; not checked: {', '.join(skipped)}" if skipped else "")
    )
    return "\n".join(lines)
