"""What a command asks for, and the plan that :mod:`harness.plan` makes of it: both are pure data.

A plan has the methods as configured, the tasks as opened, the models as found, and the specification of every
(method, seed), whose hash names the trained student.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.method import Method
from harness.models.files import ModelFiles
from harness.models.pair import Pair
from harness.recipe import Recipe
from harness.records.store import Store
from harness.task import Task
from harness.training import job, teacher_prompt
from harness.training.job import TrainingData, TrainingRun
from harness.training.several_teachers import Teaching


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
        return (
            dataclasses.replace(self.data, prompts=self.data.labelled)
            if teacher_prompt.privileged(method)
            else self.data
        )

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
