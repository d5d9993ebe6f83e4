"""What a training run is given and what it returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.method import Method
from harness.recipe import Recipe
from harness.training.tracking import Tracking
from harness.types import Example

if TYPE_CHECKING:  # a plan is made without torch
    from harness.models.adapters import TrainedAdapter
    from harness.models.files import ModelFiles
    from harness.training.cost import Cost
    from harness.training.several_teachers import Teaching
    from harness.training.validity import Checker, Same
    from harness.training.verdicts import Grader

Progress = Callable[[str, int, int, str], None]  # stage, done, total, details


@dataclass
class TrainingData:
    """The examples of a recipe; a list is empty where no method of the plan reads it."""

    prompts: list[Example]  # without reference responses: the teacher or the student answers them
    labelled: list[Example]
    validation: list[Example] = field(default_factory=list)
    checker: Checker | None = None  # scores a proposed step of the text, where the data comes with one
    longest: int | None = None  # tokens of a sequence, where a context bounds them; training.max_tokens bounds them too
    told: dict[str, str] = field(default_factory=dict)  # what was read for each list, in words
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)  # and as records keep it
    overlaps: dict[str, dict[str, int]] = field(default_factory=dict)  # with the problems of each task
    warnings: list[str] = field(default_factory=list)
    grader: Grader | None = None  # scores whole answers to the prompts, where the data has one
    same: Same | None = None  # whether two steps say the same, where the data has a rule


@dataclass
class TrainingRun:
    """One training run: method, seed, and the resolved spec whose hash names the student."""

    method: Method
    variant: str | None
    origin: str
    seed: int
    spec: dict[str, Any]
    training_id: str
    word: str = ""  # how the command named the method: a name or a file
    first: TrainingRun | None = None  # the training whose student this one starts from
    recipe: Recipe | None = None  # where it is not the plan's

    @property
    def label(self) -> str:
        own = self.method.name if self.variant is None else f"{self.method.name}@{self.variant}"
        return own if self.first is None else f"{self.first.label}>{own}"


@dataclass
class TrainingJob:
    """A training run with all that it reads and where it writes.

    ``folder`` is its own (checkpoints); ``cache`` is shared by all runs (teacher texts and signals).
    """

    run: TrainingRun
    recipe: Recipe
    student: ModelFiles
    teacher: ModelFiles | None
    data: TrainingData
    folder: Path
    cache: Path
    device: str = "cpu"
    tracking: Tracking = field(default_factory=Tracking)
    teachers: tuple[Teaching, ...] = ()  # all of them, where there are several
    words: int | None = None  # token ids that student and teacher share, from 0; None: those of the student

    @property
    def training_id(self) -> str:
        return self.run.training_id

    @property
    def method(self) -> Method:
        return self.run.method


@dataclass
class TrainingResult:
    """The trained model in memory, what it cost, its learning curve, facts of the signal and of the weights."""

    model: Any
    tokenizer: Any
    cost: Cost
    curve: list[dict[str, float]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    signal: dict[str, Any] = field(default_factory=dict)
    adapter: TrainedAdapter | None = None  # already merged into ``model``
    weights: dict[str, Any] = field(default_factory=dict)
    engine: dict[str, Any] = field(default_factory=dict)  # what sampled the student, where that was no model here
