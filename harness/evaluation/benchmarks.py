"""Opens a task by name: finds its class, reads its rows, opens its judge.

The recipe's world decides whether ``humaneval`` means the real benchmark or generated problems; ``humaneval@real`` and
``humaneval@micro`` name one of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import data, error_location, registry, task_contract, user_code
from harness.errors import BadInput, RunFailed, unknown
from harness.grading.code.task import CodeTask
from harness.sandbox import tier
from harness.task import Data, Task
from harness.types import Completion

WORLDS = ("real", "micro")
LM_EVAL = "lm_eval:"
SMOKE_TEXTS = ("", "1", "no answer\n```python\n", "\\boxed{")  # texts that every grader must accept as input
MICRO_NEW_TOKENS = 96  # the longest right answer to a generated problem has about 70 tokens


@error_location.faults_as(BadInput)
def open_task(
    name: str,
    world: str = "real",
    judge: str | None = None,
    keep: Path | None = None,
    protocol: str | None = None,
) -> Task:
    """The task, with rows and judge, under its own protocol or one of its ``protocols``.

    ``lm_eval:NAME`` is lm-eval's own task. ``keep`` is the folder that caches a judge's answers. Raises BadInput for an
    unknown name, world or protocol, missing data, a judged task without a judge, or a code task without a sandbox.
    """
    if name.startswith(LM_EVAL):
        from harness.evaluation.lm_eval_task import open_lm_eval_task

        return open_lm_eval_task(name.removeprefix(LM_EVAL))
    found, world = locate(name, world)
    asked = found if protocol is None else found.under(protocol)
    if world == "micro":
        if asked.dataset != found.dataset:
            raise BadInput(f"protocol {protocol} uses {asked.dataset.local}; the micro world has no such problems")
        return _require_sandbox(_micro_task(asked))
    return _smoke_test(_require_sandbox(_build(asked, data.read(asked.dataset), _judge(asked, judge, keep))))


def _require_sandbox(task: Task) -> Task:
    """Returns ``task``; raises BadInput, before any work, if it needs a sandbox that this machine lacks."""
    if isinstance(task, CodeTask):
        tier()
    return task


def _build(asked: type[Task], rows: Data, judge: Any) -> Task:
    """An instance of the class; errors raised by the task's own code become BadInput with the line."""
    with error_location.faults_as(BadInput, called=asked):
        task = asked(rows, judge)
    if not hasattr(task, "items"):
        raise BadInput(task_contract.broken(asked, "__init__", "leaves out super().__init__(data, judge)"))
    return task


def _smoke_test(task: Task) -> Task:
    """Returns ``task`` after grading a few texts with a grader that does not ship with the harness."""
    if user_code.identity(type(task)) != user_code.OURS and task.judge is None:
        asked = [Completion(p.id, 0, text, 0, "stop") for p in task.items[:2] for text in SMOKE_TEXTS]
        try:
            task.verdicts(asked)
        except RunFailed as error:
            raise BadInput(str(error)) from error
    return task


@error_location.faults_as(BadInput)
def open_unjudged(name: str, protocol: str | None = None) -> Task:
    """The task for inspection: a judged task has no judge, except in the micro world, and cannot grade."""
    found, world = locate(name)
    asked = found if protocol is None else found.under(protocol)
    return _micro_task(asked) if world == "micro" else _build(asked, data.read(asked.dataset), None)


def open_all(
    names: Sequence[str], world: str, judge: str | None, keep: Path | None, protocol: str | None
) -> list[Task]:
    """Opens several tasks. ``protocol`` applies to those that have it; raises BadInput if none does."""
    # lm-eval's own tasks have no protocols.
    ours = [name for name in names if not name.startswith(LM_EVAL)]
    having = {name: protocol for name in ours if protocol in locate(name, world)[0].protocols}
    if protocol is not None and not having:
        known = {other for name in ours for other in locate(name, world)[0].protocols}
        if not known:
            raise BadInput(f"{', '.join(names)}: no protocol but the task's own; leave out --protocol {protocol}")
        raise unknown(f"protocol of {', '.join(names)}", protocol, known)
    return [open_task(name, world, judge, keep, having.get(name)) for name in names]


def locate(name: str, world: str = "real") -> tuple[type[Task], str]:
    """The class of a task and the world that ``name`` means. Raises BadInput for an unknown name or world."""
    # NAME@micro and NAME@real select the world; a path of a task file may contain an @.
    bare, at, chosen = name.rpartition("@")
    outright = bool(at) and chosen in WORLDS
    if outright:
        name, world = bare, chosen
    elif at and not name.endswith(".py"):
        raise BadInput(f"task {name!r}: a task is called NAME, NAME@micro or NAME@real")
    found = registry.find(registry.TASKS, name)
    task_contract.facts(found)
    if world == "micro":
        from harness.micro import world as micro

        # Under a micro recipe, a task without generated problems is the real one.
        if not outright and found.name not in micro.TASKS:
            world = "real"
    return found, world


def _micro_task(found: type[Task]) -> Task:
    from harness.micro import world as micro
    from harness.micro.judge import ProgrammaticJudge

    task = found(micro.dataset(found.name), ProgrammaticJudge() if found.needs_judge else None)
    task.decoding = dataclasses.replace(task.decoding, max_new_tokens=MICRO_NEW_TOKENS)
    return task


def _judge(found: type[Task], judge: str | None, keep: Path | None):
    if not found.needs_judge:
        return None
    from harness.grading.judges.judgement import require_judge
    from harness.grading.judges.open_judge import open_judge

    require_judge(found.name, judge)
    return open_judge(judge, getattr(found, "judge_protocol", "alpacaeval-1"), keep)
