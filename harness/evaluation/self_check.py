"""``harness check``: tests the graders. Reference answers must be accepted, wrong answers and exploits refused.

Reference answers are compared with themselves here, in one notation. The maths grader is therefore also tested on right
and wrong answers in other notations (:mod:`harness.evaluation.notations`).

Run it before any model: a benchmark on which a perfect model cannot score 100 % is not worth its GPU time.
"""

from __future__ import annotations

import functools
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from harness import registry, user_code
from harness.errors import BadInput
from harness.evaluation import evaluate, notations, published_verdicts
from harness.evaluation.benchmarks import GENERATED, open_task
from harness.evaluation.notations import Progress
from harness.metrics import metric_of
from harness.task import Task
from harness.types import Completion, Verdict

TASKS_AT_ONCE = 2
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
    classes = [
        registry.find(registry.TASKS, name if name.endswith(".py") else name.partition("@")[0])
        for name in every
        if name != NOTATIONS
    ]
    board, waited = _Board(progress, len(every)), _Waited()

    def job(name: str) -> list[Checked]:
        report = functools.partial(board.report, name)
        results = [check_notations(report) if name == NOTATIONS else _check(name, report, waited)]
        if not names and results[0].status == "skipped" and _has_micro(name):
            results.append(_check(f"{name}@micro", report, waited))
        board.finished(name)
        return results

    # Grading of maths, of programs and of word overlap use different processes, so two tasks share the cores better
    # than one. A user's task may not bear this.
    at_once = TASKS_AT_ONCE if all(user_code.identity(task) == user_code.OURS for task in classes) else 1
    with ThreadPoolExecutor(at_once, thread_name_prefix="check") as threads:
        try:
            return [checked for results in threads.map(job, every) for checked in results]
        except BaseException:  # after an interrupt or an error the other task ends at its next report
            board.stopped = True
            raise


class _Stopped(Exception):
    """Ends a check whose result nobody will read."""


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
    """The kinds of wrong answers that ran until a limit ended them. Tasks share their engine, so each kind waits once."""

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


# Completions with known verdicts: reference answers, which must be accepted, and wrong ones, which must be refused.
#
# Reference answers are written as a model would write them, in a box or a code fence, so that they pass through the
# whole grader: extraction, sanitiser, sandbox, comparison. The wrong ones include exploits that have deceived
# graders.

WRONG_NUMBER = "123454321"  # not the answer of any shipped problem
TRAPPED = 1  # problems per task that get the exploits of the engine
SLOW_TRAPS = {"power tower", "never ends"}  # the exploits that run for seconds, until a limit ends them


@dataclass(frozen=True)
class KnownAnswer:
    """A completion and its verdict: ``passes`` if ``text`` must be accepted. ``kind`` describes it."""

    problem_id: str
    text: str
    kind: str
    passes: bool


def known_answers(task: Task) -> list[KnownAnswer]:
    """Golds and wrong answers for every problem of ``task``; none where the task states no gold."""
    write = {
        "maths": _maths_answers,
        "code": _code_answers,
        "instruction": _instruction_answers,
        "overlap": _overlap,
    }.get(task.known_wrong, _stated)
    return list(write(task))


def _stated(task: Task) -> Iterator[KnownAnswer]:
    """For any task with a method ``gold_completion(problem)``: its text, and the empty completion as a wrong one.

    None means that the task cannot write a gold for this problem.
    """
    if hasattr(task, "gold_completion"):
        for problem in task.items:
            if (gold := task.gold_completion(problem)) is not None:
                yield KnownAnswer(problem.id, gold, "gold", True)
            yield KnownAnswer(problem.id, "", "empty completion", False)


def _maths_answers(task: Task) -> Iterator[KnownAnswer]:
    if not all(hasattr(problem.reference, "text") for problem in task.items):
        yield from _stated(task)
        return
    for number, problem in enumerate(task.items):
        gold = problem.reference.text
        yield KnownAnswer(problem.id, task.gold_completion(problem), "gold in a box", True)
        wrong = [
            ("empty completion", ""),
            ("wrong answer", f"The answer is $\\boxed{{{WRONG_NUMBER}}}$."),
            ("gold without a box", f"The answer is {gold}."),
            ("box cut off by the length limit", f"The answer is $\\boxed{{{gold}"),
            ("a second box revokes the gold", f"First $\\boxed{{{gold}}}$. No: $\\boxed{{{WRONG_NUMBER}}}$."),
        ]
        if number < TRAPPED:
            wrong += [
                ("power tower", "$\\boxed{" + "9^{" * 8 + "9" + "}" * 9 + "$"),
                ("ten thousand brackets", "$\\boxed{" + "(" * 10_000 + "}$"),
                ("a box in a box without end", "\\boxed{" * 5_000),
            ]
        for kind, text in wrong:
            yield KnownAnswer(problem.id, text, kind, False)


EQUALS_ALL = """class Anything(int):
    def __eq__(self, other):
        return True

    __hash__ = int.__hash__


def {name}(*args, **kwargs):
    return Anything()
"""
WALKS_THE_STACK = """import sys


def {name}(*args, **kwargs):
    frame = sys._getframe()
    while frame is not None:
        for held in [*frame.f_locals.values(), *frame.f_globals.values()]:
            if isinstance(held, list):
                held[:] = [True] * len(held)
            elif isinstance(held, dict):
                held.update(status="pass", passed=True, result="passed")
        frame = frame.f_back
    raise SystemExit(0)
"""
CODE_TRAPS = {
    "returns an object that equals everything": EQUALS_ALL,
    "walks up the stack to set the result": WALKS_THE_STACK,
    "leaves the process with success": "import os\n\n\ndef {name}(*args, **kwargs):\n    os._exit(0)\n",
    "never ends": "def {name}(*args, **kwargs):\n    while True:\n        pass\n",
    "takes all memory": "def {name}(*args, **kwargs):\n    return [0] * 10**12\n",
}


def _code_answers(task: Task) -> Iterator[KnownAnswer]:
    if not all(hasattr(problem.reference, "canonical_solution") for problem in task.items):
        yield from _stated(task)
        return
    for number, problem in enumerate(task.items):
        name, program = problem.reference.entry_point, problem.reference.prompt + problem.reference.canonical_solution
        yield KnownAnswer(problem.id, fenced(program), "canonical solution in a fence", True)
        yield KnownAnswer(problem.id, "", "empty completion", False)
        returns_nothing = f"def {name}(*args, **kwargs):\n    return None"
        yield KnownAnswer(problem.id, fenced(returns_nothing), "wrong answer: always None", False)
        yield KnownAnswer(problem.id, _truncated(program, name), "program cut off by the length limit", False)
        if number < TRAPPED:
            for kind, trap in CODE_TRAPS.items():
                yield KnownAnswer(problem.id, fenced(trap.format(name=name)), kind, False)


def fenced(program: str) -> str:
    """A program in a code block, as a chat model writes it."""
    return f"Here is the function:\n\n```python\n{program.rstrip()}\n```\n"


def _truncated(program: str, name: str) -> str:
    """The fenced program, cut off within the first statement of its entry point."""
    # The last definition counts: helpers of the prompt come before it.
    lines = program.rstrip().split("\n")
    start = max(i for i, line in enumerate(lines) if re.match(rf"def {re.escape(name)}\s*\(", line))
    return "Here is the function:\n\n```python\n" + "\n".join([*lines[: start + 1], "    return ((("])


def _instruction_answers(task: Task) -> Iterator[KnownAnswer]:
    """For the micro world, whose judge computes the right answers; the verdicts of other judges are not known."""
    if task.data.world != "micro":
        return
    from harness.micro.world import held_out

    for problem, example in zip(task.items, held_out(task.name), strict=True):
        yield KnownAnswer(problem.id, example.response, "right response", True)
        yield KnownAnswer(problem.id, "", "empty completion", False)
        cut = example.response.rpartition("\n")[0]
        yield KnownAnswer(problem.id, cut, "response cut off before its answer", False)


def _overlap(task: Task) -> Iterator[KnownAnswer]:
    """For scores of word overlap: a reference scores 1, a longer or shorter text does not."""
    for known in _stated(task):
        yield known
        if known.passes:
            yield KnownAnswer(known.problem_id, f"{known.text}\n\nzyzzyva", "gold plus one word", False)
            yield KnownAnswer(known.problem_id, f"<|endoftext|>{known.text}", "gold after the end of the text", False)


def counts_as_right(task: Task, score: float) -> bool:
    """Whether ``score`` is that of a right answer; a right response need only tie with a right reference."""
    return metric_of(task).is_right(score)
