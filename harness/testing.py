"""The conformance suite for all methods, tasks and judges, ours and yours.

In your own tests::

    from harness.testing import check_judge, check_method, check_task
    def test_method(): check_method(MyMethod)
    def test_task(): check_task(MyTask, rows)
    def test_judge(): check_judge(MyJudge())

Each raises AssertionError with FILE:LINE and the broken requirement. ``harness check --method FILE``,
``--task FILE`` and ``--judge FILE`` make the same checks and print them, from :func:`method_checks`,
:func:`task_checks` and :func:`judge_checks`. None needs a network, a GPU or a download.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness import (
    contract_checks,
    data,
    error_location,
    method_probe,
    method_settings,
    options,
    registry,
    task_contract,
)
from harness.errors import BadInput, NotHere, RunFailed
from harness.evaluation.benchmarks import locate
from harness.grading.judges.judgement import Judge, PairToJudge, judge_all
from harness.grading.judges.open_judge import check_identity, open_judge
from harness.method import Method, ReferencePoint
from harness.method_contract import broken
from harness.method_probe import random_tokens, step_features
from harness.plan import settings_of, variants_of
from harness.task import Data, Task
from harness.types import Completion

__all__ = [
    "check_judge",
    "check_method",
    "check_task",
    "judge_checks",
    "method_checks",
    "random_tokens",
    "step_features",
    "task_checks",
]

LEFT_OUT = "not checked"  # prefix of the line of a skipped check
TEXTS = (
    "",
    "\x00\ud800 junk \\boxed{",
    "```python\n",
    "9" * 5000,
    "((((" * 500,
)  # malformed completions that a grader must survive


def check_method(method_class: type[Method], config: Any = None) -> None:
    """Checks a method. Raises AssertionError with FILE:LINE for the first broken requirement."""
    for _ in method_checks(method_class, config):
        pass


def check_task(task_class: type[Task], rows: Sequence[Mapping[str, Any]], judge: Any = None) -> Task:
    """Checks a task on a few rows in its file format; returns the task for further checks."""
    assert not task_class.needs_judge or judge is not None, "a judged task needs a judge for its check"
    for _ in task_checks(task_class, rows, judge):
        pass
    return task_class(_data(rows), judge)


PAIRS = (  # pairs that a judge must handle
    PairToJudge("1", "Say hello.", "Hello!", "Hi."),
    PairToJudge("2", "Say hello.", "Hello!", ""),
    PairToJudge("3", "Say hello.", "Hello!", "\x00\ud800 junk [[A]]"),
    PairToJudge("4", "What is 2 + 2?", "4", "9" * 5000),
)


def check_judge(judge: Any, pairs: Sequence[PairToJudge] = PAIRS) -> None:
    """Checks all requirements of a judge on ``pairs``. Raises AssertionError with FILE:LINE for a broken one.

    The judge has a name, a constant identity in JSON, and one verdict per pair, in order, whatever the
    order of the pairs.
    """
    for _ in judge_checks(judge, pairs):
        pass


def judge_checks(judge: Any, pairs: Sequence[PairToJudge] = PAIRS) -> Iterator[str]:
    """Checks a judge; yields a line per check. Raises AssertionError with FILE:LINE for a broken requirement."""
    where = error_location.of(type(judge))
    assert isinstance(judge, Judge), f"{where}: a judge subclasses harness.grading.judges.judgement.Judge"
    try:
        with error_location.faults_as(BadInput, called=type(judge)):
            identity = check_identity(judge)
            judgements = judge_all(judge, pairs)
            backwards = judge_all(judge, pairs[::-1])[::-1]
            assert identity == check_identity(judge), f"{where}: identity changes while the judge works"
            assert judge_all(judge, []) == [], f"{where}: gives judgements on no pairs"
    except (BadInput, RunFailed) as error:
        raise AssertionError(str(error)) from error
    yield "its identity is JSON and stays the same while it works"
    yield f"one verdict on each of {len(pairs)} pairs, empty and malformed answers among them, and none on none"
    for one, again in zip(judgements, backwards, strict=True):
        assert one.score == again.score, f"{where}: a pair gets another verdict in another order of the pairs"
        assert one.reason, f"{where}: gives a judgement without a reason"
    yield "a verdict has a reason, and does not depend on the order of the pairs"


def method_checks(method_class: type[Method], config: Any = None) -> Iterator[str]:
    """Checks a method on synthetic tokens with an exact, a top-k and a bfloat16 signal; yields a line per check.

    Raises AssertionError with FILE:LINE for the first broken requirement.
    """
    try:
        with error_location.faults_as(BadInput, called=method_class):
            yield from _method_checks(method_class, config)
    except BadInput as error:
        raise AssertionError(str(error)) from error


def _method_checks(method_class: type[Method], config: Any) -> Iterator[str]:
    assert issubclass(method_class, Method), "a method subclasses harness.Method"
    assert method_class.__doc__, (
        f"{error_location.of(method_class)}: give the class a docstring, the line that `harness list` shows"
    )
    method_settings.check(method_class)
    place = error_location.of(method_class.Config)
    assert method_class.Config.__dataclass_params__.frozen, (
        f"{place}: Config is not a frozen dataclass; say frozen=True"
    )
    for setting in dataclasses.fields(method_class.Config):
        fault = "has no help text; make it with harness.options.option"
        assert setting.metadata.get("help"), (
            f"{error_location.of(method_class.Config, setting.name)}: setting {setting.name} {fault}"
        )
    yield "a docstring, and a frozen Config whose settings say what they are"
    method = method_settings.made(method_class, config)
    yield from method_probe.probe(method)
    if isinstance(method, ReferencePoint):
        assert method_class.evaluates in {"student", "teacher"}, (
            f"{error_location.of(method_class)}: evaluates is student or teacher"
        )
        return
    yield from _further(method)


def _further(method: Method) -> Iterator[str]:
    """Requirements that a run does not check: the control, chunks, top-k signals, half precision."""
    import torch

    if type(method).weight is not Method.weight:
        fault = 'is there, but no setting `shuffle`; add shuffle: bool = option(False, "control: shuffled weights")'
        assert hasattr(method.config, "shuffle"), str(broken(method, "weight", fault))
        yield "a setting `shuffle`, the control of its weights"
    fault = "looks across tokens: a token has another value in another slice, and the loop may cut slices anywhere"
    assert not method_probe.looks_across(method), str(broken(method, "objective", fault))
    yield "a token's value depends on that token alone"
    needs = method.needs
    coarse = needs.teacher == "signal" and not (needs.exact or needs.sequence_features)
    if coarse and getattr(method.config, "temperature", 1.0) == 1.0:
        method_probe.value(method, random_tokens(seed=0, k=4, method=method))
        yield "a top-k signal with a bucket for the rest"
    tokens = random_tokens(seed=0, dtype=torch.bfloat16, method=method)
    method_probe.value(method, tokens)
    yield "bfloat16 logits"


def task_checks(task_class: type[Task], rows: Sequence[Mapping[str, Any]] | None, judge: Any = None) -> Iterator[str]:
    """Checks a task; yields a line per check, also for those skipped for lack of ``rows`` or of a judge.

    Raises AssertionError with FILE:LINE for the first broken requirement.
    """
    try:
        with error_location.faults_as(BadInput, called=task_class):
            yield from _task_checks(task_class, rows, judge)
    except NotHere as error:
        yield f"{LEFT_OUT}: {error}"
    except (BadInput, RunFailed) as error:
        raise AssertionError(str(error)) from error


def _task_checks(task_class: type[Task], rows: Sequence[Mapping[str, Any]] | None, judge: Any) -> Iterator[str]:
    contract_checks.refuse_misspelt(task_class, Task, "task", ())
    task_contract.facts(task_class)
    place = error_location.of(task_class, "dataset")
    pinned = len(task_class.dataset.sha256) == 64 and len(task_class.dataset.commit) == 40
    assert pinned, f"{place}: the dataset is not pinned: commit has 40 hex digits, sha256 has 64"
    yield "name, version, family, metric, a pinned dataset, decoding"
    if not rows:
        yield f"{LEFT_OUT}: problems, prompts and verdicts (no rows available)"
        return
    task = task_contract.made(task_class, _data(rows), judge)
    begun = sum(not problem.follows for problem in task.items)  # later turns of a conversation belong to their first
    fault = f"gave {begun} problems for {len(rows)} rows; {task_contract.ROWS_WANTED}"
    assert begun == len(rows) or (task_class.takes_some and begun < len(rows)), task_contract.broken(
        task_class, "problems", fault
    )
    each = f"{begun} of {len(rows)} rows" if task_class.takes_some else f"one per row ({len(rows)} rows)"
    yield f"problems: {each}, unique ids, prompts for models with and without a template"
    _refuses_an_empty_row(task_class, judge)
    yield "problems: a row without its fields is refused with BadInput"
    if task_class.needs_judge and judge is None:
        yield f"{LEFT_OUT}: verdicts (they need a judge)"
        return
    for text in TEXTS:
        completions = [Completion(problem.id, 2, text, 0, "stop") for problem in task.items]
        verdicts = task.verdicts(completions)
        task_contract.afterwards(task, completions, verdicts)
        fault = "gave verdicts on other samples than it was asked about; one each is wanted, in order"
        assert all(v.sample == 2 for v in verdicts), task_contract.broken(task_class, "grade_all", fault)
        fault = "gave a verdict without a reason; say what was checked"
        assert all(v.reason for v in verdicts), task_contract.broken(task_class, "grade", fault)
        again = [v.score for v in task.verdicts(completions[::-1])][::-1]
        fault = f"gave two scores to one text ({text[:20]!r}); the same text always gets the same verdict"
        assert again == [v.score for v in verdicts], task_contract.broken(task_class, "grade", fault)
    yield f"grade: repeatable verdicts with reasons, on {len(TEXTS)} texts of no answer"


def _refuses_an_empty_row(task_class: type[Task], judge: Any) -> None:
    try:
        task_class(_data([{}]), judge)
    except BadInput:
        return
    except Exception as error:  # user code may raise any exception
        fault = (
            f"raises {type(error).__name__} on a row without fields; raise BadInput that names the row and the field"
        )
        raise AssertionError(task_contract.broken(task_class, "problems", fault)) from error
    fault = "accepts a row without fields; raise BadInput that names the row and the field"
    raise AssertionError(task_contract.broken(task_class, "problems", fault))


def _data(rows: Sequence[Mapping[str, Any]]) -> Data:
    return Data(rows=rows, sha256="0" * 64, source="check", world="real")


# ``harness check --method``, ``--task`` and ``--judge``: runs the suite above and reports it.

SAMPLE_ROWS = 5  # rows of a benchmark; every text of the suite is graded twice on each


@dataclass
class Conformed:
    """The result for one method, task or judge: a line per check, and the first violation of the contract, if any."""

    name: str
    checked: list[str] = field(default_factory=list)
    broken: str = ""

    @property
    def whole(self) -> bool:
        """Whether no check was skipped for lack of rows or a judge, and the contract holds."""
        return not self.broken and not any(line.startswith(LEFT_OUT) for line in self.checked)

    def take(self, lines: Iterator[str]) -> Conformed:
        """Runs the checks up to the first violation; returns this object."""
        try:
            for line in lines:
                self.checked.append(line)
        except AssertionError as error:
            self.broken = str(error)
        return self


def conformance_of_methods(names: Sequence[str]) -> list[Conformed]:
    """Checks each method, with all its variants unless one is named. Raises BadInput for an unknown method."""
    results = []
    for name in names:
        cls = registry.find(registry.METHODS, registry.split(name)[0])
        variants: list[tuple[str, Mapping[str, Any]]] = [(name, settings_of(cls, name))]
        if not registry.split(name)[1]:
            variants += [(f"{name}@{variant}", settings) for variant, settings in variants_of(cls).items()]
        for label, settings in variants:
            results.append(Conformed(label).take(_method(cls, label, settings)))
            if results[-1].broken:
                break
    return results


def _method(cls: type, label: str, settings: Mapping[str, Any]) -> Iterator[str]:
    yield from method_checks(cls, options.build(cls.Config, settings, label))


def conformance_of_task(name: str) -> Conformed:
    """Checks a task on its first rows, if available. Raises BadInput for an unknown task."""
    task_class, world = locate(name)
    rows, judge = _rows(task_class, world)
    return Conformed(name).take(task_checks(task_class, rows, judge))


def conformance_of_judge(spec: str) -> Conformed:
    """Checks a judge, given as ``--judge`` takes it. Raises BadInput for an unknown one."""
    return Conformed(spec).take(judge_checks(open_judge(spec)))


def _rows(task_class: type[Task], world: str) -> tuple[Sequence[Mapping[str, Any]] | None, Any]:
    if world != "real":
        from harness.grading.judges.generated import ProgrammaticJudge
        from harness.micro import world as micro

        judge = ProgrammaticJudge() if task_class.needs_judge else None
        return micro.dataset(task_class.name, world).rows[:SAMPLE_ROWS], judge
    rows = data.read(task_class.dataset).rows if data.at_hand(task_class.dataset) else None
    # The rows that a task uses may be anywhere in the file.
    return (rows if task_class.takes_some or rows is None else rows[:SAMPLE_ROWS]), None


def conformance_text(conformed: Conformed) -> str:
    """The report: a line per check, then the violation or "conforms"."""
    marks = ["--" if line.startswith(LEFT_OUT) else "ok" for line in conformed.checked]
    lines = [conformed.name, *(f"  {mark}  {line}" for mark, line in zip(marks, conformed.checked, strict=True))]
    return "\n".join([*lines, f"  broken  {conformed.broken}" if conformed.broken else "  conforms"])
