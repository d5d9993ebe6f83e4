"""The request of a command, the plan that :mod:`harness.plan` builds from it, and checks for unused options.

A plan has the configured methods, the opened tasks, the located models, and the specification of every
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
    weights: bool = True  # False checks a pair of the hub by configuration and tokenizer, before weights are fetched
    engines: bool = True  # False contacts no server and no environment of vLLM: the run is only planned


@dataclass
class Plan:
    """All training runs and tasks of a command, checked."""

    request: RunRequest
    recipe: Recipe
    tasks: list[Task]
    trainings: list[TrainingRun]
    student: ModelFiles
    teacher: ModelFiles | None
    pair: Pair  # student and teacher in one format
    data: TrainingData
    template: str
    store: Store
    device: str
    teachers: tuple[Teaching, ...] = ()  # all of them, if there are several

    def data_of(self, method: Method) -> TrainingData:
        """The data for a method: with a teacher's own prompt, the student answers the labelled examples."""
        return dataclasses.replace(self.data, prompts=self.data.labelled) if job.privileged(method) else self.data

    @property
    def stages(self) -> list[TrainingRun]:
        """All trainings including first stages, each before the one that starts from it."""
        return [one for training in self.trainings for one in (training.first, training) if one is not None]

    @property
    def work(self) -> Path:
        """The folder of interrupted work, caches and trained students."""
        return self.request.results / "work"

    def recipe_of(self, method: Method, chosen: Recipe | None = None) -> Recipe:
        """The recipe, or ``chosen``, for a method: ``training.epochs`` as steps over the examples it reads."""
        return job.with_steps(chosen or self.recipe, method, self.data_of(method))


def unused_judge(tasks: Sequence[Task], judge: str | None) -> list[str]:
    """Warnings if only some of the tasks use ``--judge``. Raises BadInput if none uses it."""
    if judge is None:
        return []
    unread = [task.title for task in tasks if not task.needs_judge or task.data.world != "real"]
    if len(unread) == len(tasks):
        raise BadInput(f"--judge: {', '.join(unread)} does not use your judge; remove --judge")
    return [f"--judge has no effect on {', '.join(unread)}, graded without your judge"] if unread else []


def unused_options(plan: Plan, *, sandbox: str | None = None) -> list[str]:
    """Warnings about options that only a part of a request uses. Raises BadInput for a judge that no task uses."""
    request, methods = plan.request, [training.method for training in plan.stages]
    warnings = unused_judge(plan.tasks, request.judge)
    if request.protocol is not None:
        unread = [task.title for task in plan.tasks if task.protocol != request.protocol]
        warnings += (
            [f"--protocol {request.protocol} has no effect on {', '.join(unread)}, which does not have it"]
            if unread
            else []
        )
    # A method without a teacher still trains in the teacher's chat template, if the pair has one.
    if request.teacher and plan.teacher is None and plan.pair.student.format is None:
        warnings.append(f"--teacher has no effect: {_names(plan)} needs no teacher")
    trained = [method for method in methods if not isinstance(method, ReferencePoint)]
    if request.track and not trained:
        warnings.append(f"--track has no effect: {_names(plan)} trains nothing")
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
            warnings.append(f"--set {setting} has no effect on {_names(plan)}")
    if sandbox and not any(task.runs_programs for task in plan.tasks):
        warnings.append("--sandbox has no effect: no requested task runs programs")
    return warnings


def _names(plan: Plan) -> str:
    return ", ".join(dict.fromkeys(training.label for training in plan.trainings))
