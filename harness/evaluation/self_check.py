"""``harness check``: tests the graders. Reference answers must be accepted, wrong answers and exploits refused.

Reference answers are compared with themselves here, in one notation. The maths grader is therefore also tested on right
and wrong answers in other notations (:mod:`harness.evaluation.notations`).

Run it before any model: a benchmark on which a perfect model cannot score 100 % is not worth its GPU time.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from harness import registry, user_code
from harness.errors import BadInput
from harness.evaluation import evaluate, notations, published_verdicts
from harness.evaluation.benchmarks import GENERATED, open_task
from harness.evaluation.known_answers import SLOW_TRAPS, KnownAnswer, known_answers
from harness.evaluation.notations import Progress
from harness.metrics import metric_of
from harness.task import Task
from harness.types import Completion, Verdict

TASKS_AT_ONCE = 3
CHUNK = 64  # completions graded between progress updates
NOTATIONS = "notations"  # name of the notation suite among the tasks
NO_GOLD = "the task has no reference completions; give it a method gold_completion(problem)"
TOLERANCES = {"win rate": published_verdicts.WIN_RATE_TOLERANCE, "mean rating": published_verdicts.RATING_TOLERANCE}
NO_REPLAY = "the judge's verdicts are not known in advance, and HARNESS_DATA has no recorded judgements of these items"


@dataclass
class Tally:
    """``passed`` of ``total`` known answers got the right verdict."""

    passed: int = 0
    total: int = 0

    def add(self, passed: bool) -> None:
        self.passed += passed
        self.total += 1

    def __str__(self) -> str:
        return f"{self.passed}/{self.total}"


@dataclass
class Checked:
    """The result for one task. ``golds`` counts problems with reference answers, ``traps`` wrong completions."""

    task: str
    status: str = "green"  # green, failed or skipped
    reason: str = ""  # why it was skipped
    golds: Tally = field(default_factory=Tally)
    traps: Tally = field(default_factory=Tally)
    failures: list[dict[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


def check(names: Sequence[str], progress: Callable[[str, int, int, str], None]) -> list[Checked]:
    """Checks the named tasks, or all; a task that cannot be checked is reported as skipped, with the reason.

    Without names, the notation suite comes first, and the generated problems of a skipped benchmark are checked in its
    place. The name ``notations`` selects the notation suite. Raises BadInput for an unknown name.
    """
    every = list(names) or [NOTATIONS, *(entry.name for entry in registry.entries(registry.TASKS))]
    every.sort(key=lambda name: name != NOTATIONS)
    # Refuse an unknown name before grading anything.
    classes = {
        name: registry.find(registry.TASKS, name if name.endswith(".py") else name.partition("@")[0])
        for name in every
        if name != NOTATIONS
    }
    board, waited = _Board(progress, len(every)), _Waited()

    def graded(name: str) -> list[Checked]:
        report = functools.partial(board.report, name)
        results = [check_notations(report) if name == NOTATIONS else _check(name, report, waited)]
        if not names and results[0].status == "skipped" and _has_micro(name):
            results.append(_check(f"{name}@micro", report, waited))
        board.finished(name)
        return results

    # Programs run in the sandbox, maths in workers of its own: several tasks at once keep the cores busy while one
    # waits for its slowest answer. Programs come first, because some run for half a minute. A user's task may not
    # bear company.
    ours = all(user_code.identity(task) == user_code.OURS for task in classes.values())
    queue = sorted(every, key=lambda name: not (name in classes and classes[name].runs_programs)) if ours else every
    with ThreadPoolExecutor(TASKS_AT_ONCE if ours else 1, thread_name_prefix="check") as threads:
        try:
            results = dict(zip(queue, threads.map(graded, queue), strict=True))
        except BaseException:  # after an interrupt or an error the other tasks end at their next reports
            board.stopped = True
            raise
    return [checked for name in every for checked in results[name]]


class _Stopped(Exception):
    """Ends a check that is still running when the command ends."""


class _Board:
    """One progress for tasks that are checked at once: how many are done, and how far the others are."""

    def __init__(self, progress: Callable[[str, int, int, str], None], tasks: int):
        self.progress, self.tasks, self.done = progress, tasks, 0
        self.running: dict[str, str] = {}
        self.lock = threading.Lock()
        self.stopped = False

    def report(self, name: str, done: int, total: int, details: str) -> None:
        """``done`` of ``total`` answers of the task ``name``. Raises _Stopped if the command has ended."""
        if self.stopped:
            raise _Stopped
        with self.lock:
            self.running[name] = " ".join(filter(None, (name, f"{done:,} of {total:,}" if total else "", details)))
            self._tell()

    def finished(self, name: str) -> None:
        with self.lock:
            self.running.pop(name, None)
            self.done += 1
            self._tell()

    def _tell(self) -> None:
        self.progress("check", self.done, self.tasks, ", ".join(self.running.values()))


class _Waited:
    """The kinds of wrong answers that ran until a limit ended them; tasks share their engine, so each waits once."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self.lock = threading.Lock()

    def without(self, known: Sequence[KnownAnswer]) -> list[KnownAnswer]:
        """``known`` without the kinds that have waited; those that it holds wait now."""
        with self.lock:
            left = [answer for answer in known if answer.kind not in self.kinds]
            self.kinds |= {answer.kind for answer in left} & SLOW_TRAPS
        return left


def check_notations(progress: Progress) -> Checked:
    """Checks answers in other notations: all of them with the grader, a sample with a whole maths task."""
    from harness.micro.world import ANY_ANSWER

    began = time.monotonic()
    checked, every = Checked(NOTATIONS), notations.cases()
    counts_by_kind = notations.check_grader(every, progress)
    counted = counts_by_kind.values()
    checked.golds = Tally(sum(c.accepted_right for c in counted), sum(c.accepted for c in counted))
    checked.traps = Tally(sum(c.refused_right for c in counted), sum(c.refused for c in counted))
    checked.notes = [
        f"{kind}: accepted {c.accepted_right}/{c.accepted}, refused {c.refused_right}/{c.refused}"
        for kind, c in counts_by_kind.items()
    ]
    wrong = [failure for c in counted for failure in c.failures]
    known = {case for case, _ in wrong}
    # A sample also passes through a whole task; failures that the grader already showed are not repeated.
    sample = notations.sample(every)
    failed = notations.check_task(open_task(ANY_ANSWER), sample)
    checked.notes.append(f"through {ANY_ANSWER}: {len(sample) - len(failed)}/{len(sample)}")
    wrong += [(case, f"{reason} (through {ANY_ANSWER})") for case, reason in failed if case not in known]
    checked.failures = [
        {"problem_id": c.kind, "kind": c.description, "must": c.must, "reason": notations.flat(reason)}
        for c, reason in wrong
    ]
    checked.status = "failed" if checked.failures else "green"
    checked.seconds = round(time.monotonic() - began, 1)
    return checked


def _has_micro(name: str) -> bool:
    from harness.micro.world import TASKS

    return name in TASKS


def _check(name: str, progress: Progress, waited: _Waited) -> Checked:
    began = time.monotonic()
    checked = Checked(name)
    try:
        needs = _judged(name)
        if needs and needs.needs_rating:
            for rated in published_verdicts.recorded_ratings(needs):
                _replay(rated.name, rated.mean, published_verdicts.mean_rating(rated), "mean rating", checked, progress)
        elif needs:
            for won in published_verdicts.recorded_win_rates(needs):
                _replay(won.name, won.win_rate, published_verdicts.win_rate(won), "win rate", checked, progress)
        else:
            grade_known(open_task(name), checked, progress, waited)
        if not checked.golds.total:
            raise BadInput(NO_REPLAY if needs else NO_GOLD)
    except BadInput as error:
        checked.status, checked.reason = "skipped", str(error)
    if checked.failures:
        checked.status = "failed"
    checked.seconds = round(time.monotonic() - began, 1)
    return checked


def _judged(name: str) -> type[Task] | None:
    """The class of the task ``name`` if it is graded by a judge whose verdicts are not known in advance."""
    if name.endswith(tuple(f"@{world}" for world in GENERATED)):
        return None
    task_class = registry.find(registry.TASKS, name.removesuffix("@real"))
    return task_class if task_class.needs_judge else None


def grade_known(task: Task, checked: Checked, progress: Progress, waited: _Waited) -> None:
    """Grades every known answer with the whole grader of ``task``; adds the results to ``checked``."""
    checked.task = task.title
    known = waited.without(known_answers(task))
    if task.runs_programs and known:
        from harness.sandbox import tier

        checked.notes.append(str(tier()))
    if repairs := getattr(task, "repairs", None):
        checked.notes.append(f"{len(repairs)} malformed reference answers are read as repaired: {', '.join(repairs)}")
    # A problem counts as one in ``golds``, however many right answers it has.
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
            must, reason = "pass" if answer.passes else "fail", f"{verdict.reason} (score {verdict.score:g})"
            checked.failures.append(
                {"problem_id": answer.problem_id, "kind": answer.kind, "must": must, "reason": reason}
            )
    for wrong in failed.values():
        checked.golds.add(not wrong)


def _verdicts(task: Task, known: Sequence[KnownAnswer], progress: Progress) -> list[Verdict]:
    samples: dict[str, int] = {}
    completions = []
    for answer in known:
        sample = samples[answer.problem_id] = samples.get(answer.problem_id, -1) + 1
        completions.append(Completion(answer.problem_id, sample, answer.text, 0, "stop"))
    verdicts: list[Verdict] = []
    chunks = [completions[start : start + CHUNK] for start in range(0, len(completions), CHUNK)]
    progress(0, len(completions), "")
    # Some programs run for half a minute: the next chunk begins meanwhile. A user's task grades one chunk at a time.
    at_once = 2 if task.runs_programs and user_code.identity(type(task)) == user_code.OURS else 1
    with ThreadPoolExecutor(at_once, thread_name_prefix="check") as threads:
        for graded in threads.map(functools.partial(evaluate.verdicts_of, task), chunks):
            verdicts += graded
            progress(len(verdicts), len(completions), "")
    return verdicts


def _replay(
    name: str, published: float, ours_and_note: tuple[float, str], figure: str, checked: Checked, progress: Progress
) -> None:
    """Compares a figure computed from recorded judgements, given with its note, with the published one."""
    ours, note = ours_and_note
    tolerance = TOLERANCES[figure]
    progress(checked.golds.total, checked.golds.total + 1, name)
    checked.notes.append(note)
    checked.golds.add(abs(ours - published) <= tolerance)
    if abs(ours - published) > tolerance:
        checked.failures.append({"problem_id": name, "kind": f"published {figure}", "must": "pass", "reason": note})


def green(results: Sequence[Checked]) -> bool:
    """Whether at least one task was checked and none failed."""
    return any(c.status == "green" for c in results) and not any(c.status == "failed" for c in results)


def as_json(results: Sequence[Checked]) -> dict[str, Any]:
    return {"green": green(results), "tasks": [asdict(checked) for checked in results]}


def text(results: Sequence[Checked]) -> str:
    """A line per task followed by its failures, and a last line with the tasks that were not checked."""
    width = max(len(checked.task) for checked in results)
    lines = []
    for c in results:
        if c.status == "skipped":
            lines.append(f"{c.task:<{width}}  skipped: {c.reason}")
            continue
        lines.append(
            f"{c.task:<{width}}  {c.status:<6}  accepted {c.golds}  wrong answers refused {c.traps}  {c.seconds:g} s"
        )
        lines += [f"{'':<{width}}  {note}" for note in c.notes]
        lines += [f"{'':<{width}}  {f['problem_id']}: {f['kind']} must {f['must']}: {f['reason']}" for f in c.failures]
    skipped = [c.task for c in results if c.status == "skipped"]
    lines.append(
        ("all green" if green(results) else "not green") + (f"; not checked: {', '.join(skipped)}" if skipped else "")
    )
    return "\n".join(lines)


def counts_as_right(task: Task, score: float) -> bool:
    """Whether ``score`` is that of a right answer; a right response need only tie with a right reference."""
    return metric_of(task).is_right(score)
