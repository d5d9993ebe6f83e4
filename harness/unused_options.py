"""Detects unused options: an error where no part of a request reads them, a warning where only some parts do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.errors import BadInput
from harness.method import ReferencePoint
from harness.models import adapters
from harness.task import Task
from harness.training import job
from harness.types import Source

if TYPE_CHECKING:
    from harness.request import Plan


def judge_warnings(tasks: Sequence[Task], judge: str | None) -> list[str]:
    """Warnings where ``--judge`` is read by some of the tasks only. Raises BadInput where none reads it."""
    if judge is None:
        return []
    unread = [task.title for task in tasks if not task.needs_judge or task.data.world != "real"]
    if len(unread) == len(tasks):
        raise BadInput(f"--judge: {', '.join(unread)} is graded without a judge of yours; leave --judge out")
    return [f"--judge is not read by {', '.join(unread)}, which no judge of yours grades"] if unread else []


def warnings(plan: Plan, *, sandbox: str | None = None) -> list[str]:
    """Warnings about options that only part of a request reads. Raises BadInput for a judge that no task reads."""
    request, methods = plan.request, [training.method for training in plan.stages]
    found = judge_warnings(plan.tasks, request.judge)
    if request.protocol is not None:
        unread = [task.title for task in plan.tasks if task.protocol != request.protocol]
        found += [f"--protocol {request.protocol} is not read by {', '.join(unread)}, which has none"] if unread else []
    # A method without a teacher is still trained in the teacher's chat template, where the pair has one.
    if request.teacher and plan.teacher is None and plan.pair.student.format is None:
        found.append(f"--teacher is not read: {_names(plan)} needs no teacher")
    trained = [method for method in methods if not isinstance(method, ReferencePoint)]
    if request.track and not trained:
        found.append(f"--track is not read: {_names(plan)} trains nothing")
    texts = {source for method in trained for source in job.sources_of(method, plan.recipe.training)}
    read = {
        "training": bool(trained),
        "rollout": bool(texts & {Source.STUDENT, Source.MIXED}),
        "teacher_text": Source.TEACHER in texts,
        "data": bool(trained),
        "teacher": plan.teacher is not None,
        "student": bool(trained) and adapters.wanted(plan.recipe.student),
    }
    for setting in request.settings:
        key = setting.partition("=")[0].strip()
        if not read.get(key.partition(".")[0], True) and not (trained and key == "student.adapter"):
            found.append(f"--set {setting} is not read: {_names(plan)} has no use for it")
    if sandbox and not any(task.runs_programs for task in plan.tasks):
        found.append("--sandbox is not read: no task asked runs programs")
    return found


def _names(plan: Plan) -> str:
    return ", ".join(dict.fromkeys(training.label for training in plan.trainings))
