"""Two trainings of one student, one after the other: ``[before]`` of a recipe names the method of the first.

Every seed trains it first, or finds its student on disk, and all methods of the recipe start from that student; so
several second stages share one first. A specification holds that of the training before it, under ``after``; a record
has the cost of both. The first stage reads the recipe's data and takes the settings of its variant and of
``[method.NAME]``; ``--set method.*`` belongs to the methods of the command alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput
from harness.method import Method, ReferencePoint
from harness.recipe import Before, Recipe
from harness.records.work_folder import student_folder

if TYPE_CHECKING:
    from harness.models.files import ModelFiles
    from harness.training.job import TrainingRun

SAID = ("steps", "learning_rate", "batch")  # of the first stage, in place of the recipe's


def check(chosen: Recipe) -> None:
    """Raises BadInput for settings of a first stage that names no method."""
    if chosen.before.method is None and chosen.before != Before():
        said = next(name for name in SAID if getattr(chosen.before, name) is not None)
        raise BadInput(f"before.{said} belongs to a training that comes first: name its method with before.method")


def check_first(method: Method) -> None:
    """Raises BadInput for a first stage that trains nothing."""
    if isinstance(method, ReferencePoint):
        raise BadInput(f"before.method={method.name} trains nothing; leave it out, or name a method that trains")


def recipe_of_first(chosen: Recipe) -> Recipe:
    """The recipe as the first stage has it."""
    own = {name: value for name in SAID if (value := getattr(chosen.before, name)) is not None}
    if "steps" in own:
        own["epochs"] = None
    return dataclasses.replace(chosen, before=Before(), training=dataclasses.replace(chosen.training, **own))


def in_spec(first: TrainingRun) -> dict[str, Any]:
    """What a specification says of the training before: all of that one's but the seed, which is shared."""
    return {"after": {key: value for key, value in first.spec.items() if key != "seed"}}


def start(student: ModelFiles, work: Path, first: TrainingRun) -> ModelFiles:
    """The student of the first stage, in the format in which the recipe's student is asked."""
    where = student_folder(work, first.training_id)
    return dataclasses.replace(student, id=first.training_id, path=where, sha256="", gguf=None, adapter=None)


def both(first: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The cost of two trainings: tokens, texts, steps and seconds add up, memory is the larger."""
    keys = dict.fromkeys((*first, *own))
    total = {key: first.get(key, 0) + own.get(key, 0) for key in keys}
    return total | {"peak_memory_bytes": max(first["peak_memory_bytes"], own["peak_memory_bytes"])}


def in_facts(first: TrainingRun, before: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What training.json says of two stages: the cost of both together, and which was the first with what it cost."""
    stage = {"training_id": first.training_id, "method": first.label, "cost": before["cost"]}
    return {"cost": both(before["cost"], own), "before": stage}
