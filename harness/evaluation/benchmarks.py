"""Opens a benchmark by the name of its task: class, rows and judge.

The recipe's world decides what ``humaneval`` means; ``humaneval@micro`` and ``humaneval@real`` name the world.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from harness import contract_checks, data, error_location, registry, task_contract, user_code
from harness.errors import BadInput, RunFailed, unknown
from harness.metrics import metric_of
from harness.recipe import WORLDS
from harness.sandbox import tier
from harness.task import Task
from harness.types import Completion

GENERATED = tuple(world for world in WORLDS if world != "real")  # see harness.micro
LM_EVAL = "lm_eval:"
SMOKE_TEXTS = ("", "1", "no answer\n```python\n", "\\boxed{")  # texts on which a grader of a user must not fail
MICRO_NEW_TOKENS = 96  # generated problems are short: the longest right answer has about 70 tokens


@error_location.faults_as(BadInput)
def open_task(
    name: str,
    world: str = "real",
    judge: str | None = None,
    keep: Path | None = None,
    protocol: str | None = None,
) -> Task:
    """Opens a task with rows and judge, under its own protocol or one of its ``protocols``.

    ``lm_eval:NAME`` is lm-eval's own task. ``keep`` is the folder of a judge's answers. Raises BadInput for an
    unknown name, world or protocol, missing data, a judged task without a judge, or programs without a sandbox.
    """
    if name.startswith(LM_EVAL):
        from harness.evaluation.lm_eval_task import open_lm_eval_task

        return open_lm_eval_task(name.removeprefix(LM_EVAL))
    task_class, world = locate(name, world)
    chosen = task_class if protocol is None else task_class.under(protocol)
    if world in GENERATED:
        if chosen.dataset != task_class.dataset:
            raise BadInput(f"protocol {protocol} asks {chosen.dataset.local}; the micro world has no such problems")
        return _walled(_micro_task(chosen, world))
    return _tried(_walled(task_contract.made(chosen, data.read(chosen.dataset), _judge(chosen, judge, keep))))


def _walled(task: Task) -> Task:
    """Returns the task after checking, before any work, that its programs can run on this machine."""
    if task.runs_programs:
        tier()
    return task


def _tried(task: Task) -> Task:
    """Returns the task; tries a grader that does not ship with the harness on a few texts first."""
    if user_code.identity(type(task)) != user_code.OURS and task.judge is None:
        completions = [Completion(p.id, 0, text, 0, "stop") for p in task.items[:2] for text in SMOKE_TEXTS]
        watch = contract_checks.ProcessState()
        try:
            verdicts = task.verdicts(completions)
            scores = [v.score for v in verdicts]
            with error_location.faults_as(BadInput, called=type(task)):
                task_contract.afterwards(task, completions, verdicts)
            backwards = [v.score for v in task.verdicts(completions[::-1])][::-1]
        except RunFailed as error:
            raise BadInput(str(error)) from error
        finally:
            changed = watch.changed()
        if scores != backwards:
            problem = "gives one text two scores: its verdict depends on earlier texts, or on chance"
            raise BadInput(task_contract.broken(type(task), "grade", problem))
        if changed is not None:
            raise BadInput(task_contract.broken(type(task), "grade", changed[0]))
    return task


@error_location.faults_as(BadInput)
def open_unjudged(name: str, protocol: str | None = None) -> Task:
    """Opens a task for display, not for grading: a judged task has no judge, except in the micro world."""
    task_class, world = locate(name)
    chosen = task_class if protocol is None else task_class.under(protocol)
    return (
        _micro_task(chosen, world)
        if world in GENERATED
        else task_contract.made(chosen, data.read(chosen.dataset), None)
    )


def open_all(
    names: Sequence[str], world: str, judge: str | None, keep: Path | None, protocol: str | None
) -> list[Task]:
    """Opens several tasks. ``protocol`` applies to those that have it; raises BadInput if none has."""
    ours = [name for name in names if not name.startswith(LM_EVAL)]
    having = {name: protocol for name in ours if protocol in locate(name, world)[0].protocols}
    if protocol is not None and not having:
        known = {other for name in ours for other in locate(name, world)[0].protocols}
        if not known:
            raise BadInput(f"{', '.join(names)}: there is no protocol {protocol!r}, only the task's own; leave it out")
        raise unknown(f"protocol of {', '.join(names)}", protocol, known)
    return [open_task(name, world, judge, keep, having.get(name)) for name in names]


def locate(name: str, world: str = "real") -> tuple[type[Task], str]:
    """The class of a task and the world that ``name`` selects. Raises BadInput for an unknown name or world."""
    bare, at, chosen = name.rpartition("@")
    outright = bool(at) and chosen in WORLDS
    if outright:
        name, world = bare, chosen
    elif at and not name.endswith(".py"):
        raise BadInput(f"task {name!r}: a task is called NAME, or {' or '.join(f'NAME@{w}' for w in WORLDS)}")
    task_class = registry.find(registry.TASKS, name)
    contract_checks.refuse_misspelt(task_class, Task, "task", ())
    task_contract.facts(task_class)
    metric_of(task_class)  # refuses an unknown metric before any work
    if world == "micro":
        from harness.micro import world as micro

        # With a micro recipe, the bare name of a task without generated problems means the real benchmark.
        if not outright and task_class.name not in micro.TASKS:
            world = "real"
    return task_class, world


def _micro_task(task_class: type[Task], world: str) -> Task:
    from harness.grading.judges.generated import ProgrammaticJudge
    from harness.micro import world as micro

    task = task_class(micro.dataset(task_class.name, world), ProgrammaticJudge() if task_class.needs_judge else None)
    task.decoding = dataclasses.replace(task.decoding, max_new_tokens=MICRO_NEW_TOKENS)
    return task


def _judge(task_class: type[Task], judge: str | None, keep: Path | None):
    if not task_class.needs_judge:
        return None
    from harness.grading.judges.judgement import require_judge
    from harness.grading.judges.open_judge import open_judge

    require_judge(task_class.name, judge)
    opened = open_judge(judge, getattr(task_class, "judge_protocol", "alpacaeval-1"), keep)
    # A judge that compares two answers cannot rate one, and vice versa.
    if (rates := getattr(opened, "rates", False)) != task_class.needs_rating:
        does, wants = ("rates one answer", "compares two") if rates else ("compares two answers", "rates one")
        raise BadInput(
            f"task {task_class.name} needs a judge that {wants}, and --judge {judge} {does}; a model (openai:…, hf:…) "
            f"or recorded judgements (replay:FILE) do as the task asks, without protocol=…"
        )
    return opened
