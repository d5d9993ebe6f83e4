"""What a training run is asked for, and what it gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.method import Method
from harness.models.files import ModelFiles
from harness.recipe import Recipe
from harness.training.cost import Cost
from harness.training.proposals import Checker
from harness.training.tracking import Tracking
from harness.types import Example

Progress = Callable[[str, int, int, str], None]  # stage, done, total, a few words


@dataclass
class TrainingJob:
    """All that decides a training run. ``folder`` is its own; ``texts`` and ``signals`` are shared by all runs."""

    training_id: str
    method: Method
    recipe: Recipe
    student: ModelFiles
    teacher: ModelFiles | None
    prompts: list[Example]
    labelled: list[Example]
    seed: int
    folder: Path
    texts: Path
    signals: Path
    validation: list[Example] = field(default_factory=list)
    device: str = "cpu"
    checker: Checker | None = None
    tracking: Tracking = field(default_factory=Tracking)
    settings: dict[str, Any] = field(default_factory=dict)  # what trackers are told of the run


@dataclass
class TrainingResult:
    """The outcome: the trained model in memory, what it cost, how it went, and facts of the teacher's signal."""

    model: Any
    tokenizer: Any
    cost: Cost
    curve: list[dict[str, float]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    signal: dict[str, Any] = field(default_factory=dict)
