"""From the name of a task to a benchmark that can be run: its adapter, its rows, its judge.

``humaneval`` is what the recipe's world makes of it; ``humaneval@micro`` and ``humaneval@real`` say it outright.
"""

from __future__ import annotations

from pathlib import Path

from harness import data, registry
from harness.errors import BadInput
from harness.task import Task

WORLDS = ("real", "micro")


def open_task(name: str, world: str = "real", judge: str | None = None, keep: Path | None = None) -> Task:
    """The task, with rows and judge. ``keep`` is where a judge's answers are kept.

    Raises BadInput for an unknown name or world, missing data, or a judged task without a judge.
    """
    bare, at, chosen = name.rpartition("@")
    if at and chosen in WORLDS:
        name, world = bare, chosen
    elif at and not name.endswith(".py"):
        raise BadInput(f"task {name!r}: a task is called NAME, NAME@micro or NAME@real")
    found = registry.find(registry.TASKS, name)
    if world == "micro" and registry_is_micro(found.name):
        from harness.micro import world as micro

        return found(micro.dataset(found.name), micro_judge() if found.needs_judge else None)
    return found(data.read(found.dataset), _judge(found, judge, keep))


def registry_is_micro(name: str) -> bool:
    """Whether the micro world has generated problems for a task; strangers' tasks bring their own data."""
    from harness.micro import world as micro

    return name in micro.TASKS


def micro_judge():
    from harness.micro.judge import ProgrammaticJudge

    return ProgrammaticJudge()


def _judge(found: type[Task], judge: str | None, keep: Path | None):
    if not found.needs_judge:
        return None
    from harness.grading.judge_opening import open_judge
    from harness.grading.judges import require_judge

    require_judge(found.name, judge)
    return open_judge(judge, getattr(found, "judge_protocol", "alpacaeval-1"), keep)
