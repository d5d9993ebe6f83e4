"""From the name of a task to a benchmark that can be run: its adapter, its rows, its judge.

``humaneval`` is what the recipe's world makes of it; ``humaneval@micro`` and ``humaneval@real`` say it outright.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from harness import data, registry
from harness.errors import BadInput
from harness.task import Task

WORLDS = ("real", "micro")
MICRO_NEW_TOKENS = 96  # generated problems are short: the longest right answer has about 70 tokens


def open_task(name: str, world: str = "real", judge: str | None = None, keep: Path | None = None) -> Task:
    """The task, with rows and judge. ``keep`` is where a judge's answers are kept.

    Raises BadInput for an unknown name or world, missing data, or a judged task without a judge.
    """
    bare, at, chosen = name.rpartition("@")
    outright = bool(at) and chosen in WORLDS
    if outright:
        name, world = bare, chosen
    elif at and not name.endswith(".py"):
        raise BadInput(f"task {name!r}: a task is called NAME, NAME@micro or NAME@real")
    found = registry.find(registry.TASKS, name)
    if world == "micro":
        from harness.micro import world as micro

        # Under a micro recipe a bare name of a task without generated problems means the task itself.
        if outright or found.name in micro.TASKS:
            return _micro_task(found)
    return found(data.read(found.dataset), _judge(found, judge, keep))


def _micro_task(found: type[Task]) -> Task:
    from harness.micro import world as micro
    from harness.micro.judge import ProgrammaticJudge

    task = found(micro.dataset(found.name), ProgrammaticJudge() if found.needs_judge else None)
    task.decoding = dataclasses.replace(task.decoding, max_new_tokens=MICRO_NEW_TOKENS)
    return task


def _judge(found: type[Task], judge: str | None, keep: Path | None):
    if not found.needs_judge:
        return None
    from harness.grading.judge_opening import open_judge
    from harness.grading.judges import require_judge

    require_judge(found.name, judge)
    return open_judge(judge, getattr(found, "judge_protocol", "alpacaeval-1"), keep)
