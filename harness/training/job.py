"""The inputs of a training run, its length (``training.epochs`` as optimizer steps), and its result."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.method import Method, Proposing, texts_of
from harness.recipe import Recipe, Training
from harness.records.curves import Tracking
from harness.types import Example, Source

if TYPE_CHECKING:  # plans do not import torch
    from harness.models.adapters import TrainedAdapter
    from harness.models.files import ModelFiles
    from harness.training.report import Cost
    from harness.training.several_teachers import Teaching
    from harness.training.validity import Checker, Same
    from harness.training.verdicts import Grader


Progress = Callable[[str, int, int, str], None]  # stage, done, total, details


@dataclass
class TrainingData:
    """The examples of a recipe; a list is empty if no method of the plan reads it."""

    prompts: list[Example]  # without reference responses: the teacher or the student answers them
    labelled: list[Example]
    validation: list[Example] = field(default_factory=list)
    checker: Checker | None = None  # scores a proposed step of the text, if the data has one
    longest: int | None = None  # limit of tokens per sequence from a context; training.max_tokens limits them too
    descriptions: dict[str, str] = field(default_factory=dict)  # description of each list's source
    facts: dict[str, dict[str, Any]] = field(default_factory=dict)  # the same for records
    overlaps: dict[str, dict[str, int]] = field(default_factory=dict)  # with the problems of each task
    warnings: list[str] = field(default_factory=list)
    grader: Grader | None = None  # scores whole answers to the prompts, if the data has one
    same: Same | None = None  # whether two steps say the same, if the data has a rule


@dataclass
class TrainingRun:
    """One training run: method, seed, and the resolved spec whose hash names the student."""

    method: Method
    variant: str | None
    origin: str
    seed: int
    spec: dict[str, Any]
    training_id: str
    word: str = ""  # the method as named in the command: a name or a file
    first: TrainingRun | None = None  # the training whose student this one starts from
    recipe: Recipe | None = None  # if it is not the plan's

    @property
    def label(self) -> str:
        own = self.method.name if self.variant is None else f"{self.method.name}@{self.variant}"
        return own if self.first is None else f"{self.first.label}>{own}"


@dataclass
class TrainingJob:
    """A training run with all of its inputs and folders.

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
    teachers: tuple[Teaching, ...] = ()  # all of them, if there are several
    words: int | None = None  # token ids that student and teacher share, from 0; None: those of the student

    @property
    def training_id(self) -> str:
        return self.run.training_id

    @property
    def method(self) -> Method:
        return self.run.method


@dataclass
class TrainingResult:
    """The trained model in memory, its cost, its learning curve, facts of the signal and of the weights."""

    model: Any
    tokenizer: Any
    cost: Cost
    curve: list[dict[str, float]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    signal: dict[str, Any] = field(default_factory=dict)
    adapter: TrainedAdapter | None = None  # already merged into ``model``
    weights: dict[str, Any] = field(default_factory=dict)
    engine: dict[str, Any] = field(default_factory=dict)  # the engine that sampled the student, if any


MANY = 10**6  # assumed steps of a run of unknown length


def sources_of(method: Method, training: Training) -> set[Source]:
    """The sources of text that a run may request, even if its number of steps is not known yet."""
    if training.epochs is None:
        return texts_of(method, training.steps)
    return texts_of(method, 1) | texts_of(method, MANY)


def privileged(method: Method) -> bool:
    """Whether the teacher has its own prompt, made from labelled examples, which the student then answers."""
    return method.needs.asking is not None and bool(method.needs.asking.template)


def asks_teacher(method: Method) -> bool:
    """Whether a training has a teacher: the recipe's, or the student itself."""
    return method.needs.teacher != "none" or bool(method.needs.proposals)


def reads_tokens(method: Method) -> bool:
    """Whether a method reads both models token by token, not the teacher's texts alone."""
    return method.needs.teacher == "signal" or bool(method.needs.joint or method.needs.proposals)


def proposing_of(method: Method) -> Proposing | None:
    """How a method asks for proposals; None where it asks for none."""
    asked = method.needs.proposals
    return Proposing() if asked is True else asked or None


def teaches_itself(method: Method) -> bool:
    """Whether the student is its own teacher, so that the recipe's is not used."""
    return method.needs.asking is not None and method.needs.asking.model != "teacher"


def examples_of(method: Method, data: TrainingData, steps: int) -> int:
    """The number of examples in an epoch: the labelled ones for a method that trains on nothing else, else prompts."""
    only_labelled = texts_of(method, steps) <= {Source.DATA}
    return len(data.labelled if only_labelled and data.labelled else data.prompts or data.labelled)


def with_steps(recipe: Recipe, method: Method, data: TrainingData) -> Recipe:
    """The recipe with ``training.steps`` set for a method and its data.

    A run of n epochs is the same training as one with that number of steps, and has the same id.
    """
    return over_examples(recipe, examples_of(method, data, MANY)) if recipe.training.epochs is not None else recipe


def over_examples(recipe: Recipe, examples: int) -> Recipe:
    """The same for a number of examples; an epoch's last step may use examples of the next one."""
    training = recipe.training
    if training.epochs is None:
        return recipe
    # Decimal fractions have no exact binary form, hence the rounding: 0.1 epochs of 30 examples are 3, not 4.
    places = round(training.epochs * examples, 6)
    steps = math.ceil(places / training.batch)
    return dataclasses.replace(recipe, training=dataclasses.replace(training, steps=steps, epochs=None))
