"""What a command asks for, the plan that :mod:`harness.plan` makes of it, and options that no part of it reads.

A plan has the methods as configured, the tasks as opened, the models as found, and the specification of every
(method, seed), whose hash names the trained student.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BadInput
from harness.method import Method, ReferencePoint
from harness.models import adapters
from harness.models.files import ModelFiles
from harness.models.pair import Pair
from harness.recipe import Recipe
from harness.records.store import Store
from harness.task import Task
from harness.training import job
from harness.training.job import TrainingData, TrainingRun
from harness.training.several_teachers import Teaching
from harness.types import Source


@dataclass(frozen=True)
class RunRequest:
    """The arguments of ``harness run``."""

    methods: Sequence[str]
    tasks: Sequence[str]
    recipe: str | None = None  # None stands for DEFAULT_RECIPE
    student: str | None = None
    teacher: str | None = None
    seeds: Sequence[int] = (0,)
    settings: Sequence[str] = ()
    results: Path = Path("results")
    device: str | None = None
    judge: str | None = None
    protocol: str | None = None
    again: bool = False
    control: bool = False
    track: Sequence[str] = ()
    weights: bool = True  # False judges a pair of the hub by configuration and tokenizer, before weights are fetched
    engines: bool = True  # False asks no server and no environment of vLLM: the run is planned, not begun


@dataclass
class Plan:
    """All training runs and tasks of a command, checked."""

    request: RunRequest
    recipe: Recipe
    tasks: list[Task]
    trainings: list[TrainingRun]
    student: ModelFiles
    teacher: ModelFiles | None
    pair: Pair  # the two as they are trained and asked: in one format
    data: TrainingData
    template: str
    store: Store
    device: str
    teachers: tuple[Teaching, ...] = ()  # all of them, where there are several

    def data_of(self, method: Method) -> TrainingData:
        """The data as a method reads it: with a teacher's own prompt, the student answers the labelled examples."""
        return dataclasses.replace(self.data, prompts=self.data.labelled) if job.privileged(method) else self.data

    @property
    def stages(self) -> list[TrainingRun]:
        """All trainings, those that come first included, each in front of the one that starts from it."""
        return [one for training in self.trainings for one in (training.first, training) if one is not None]

    @property
    def work(self) -> Path:
        """The folder of interrupted work, caches and trained students."""
        return self.request.results / "work"

    def recipe_of(self, method: Method, chosen: Recipe | None = None) -> Recipe:
        """The recipe, or ``chosen``, for a method: ``training.epochs`` as steps over the examples it reads."""
        return job.with_steps(chosen or self.recipe, method, self.data_of(method))


def unused_judge(tasks: Sequence[Task], judge: str | None) -> list[str]:
    """Warnings where ``--judge`` is read by some of the tasks only. Raises BadInput where none reads it."""
    if judge is None:
        return []
    unread = [task.title for task in tasks if not task.needs_judge or task.data.world != "real"]
    if len(unread) == len(tasks):
        raise BadInput(f"--judge: {', '.join(unread)} is graded without a judge of yours; leave --judge out")
    return [f"--judge is not read by {', '.join(unread)}, which no judge of yours grades"] if unread else []


def unused_options(plan: Plan, *, sandbox: str | None = None) -> list[str]:
    """Warnings about options that only part of a request reads. Raises BadInput for a judge that no task reads."""
    request, methods = plan.request, [training.method for training in plan.stages]
    warnings = unused_judge(plan.tasks, request.judge)
    if request.protocol is not None:
        unread = [task.title for task in plan.tasks if task.protocol != request.protocol]
        warnings += (
            [f"--protocol {request.protocol} is not read by {', '.join(unread)}, which has none"] if unread else []
        )
    # A method without a teacher is still trained in the teacher's chat template, where the pair has one.
    if request.teacher and plan.teacher is None and plan.pair.student.format is None:
        warnings.append(f"--teacher is not read: {_names(plan)} needs no teacher")
    trained = [method for method in methods if not isinstance(method, ReferencePoint)]
    if request.track and not trained:
        warnings.append(f"--track is not read: {_names(plan)} trains nothing")
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
            warnings.append(f"--set {setting} is not read: {_names(plan)} has no use for it")
    if sandbox and not any(task.runs_programs for task in plan.tasks):
        warnings.append("--sandbox is not read: no task asked runs programs")
    return warnings


def _names(plan: Plan) -> str:
    return ", ".join(dict.fromkeys(training.label for training in plan.trainings))
