"""How long a training is: ``training.epochs`` as optimizer steps."""

from __future__ import annotations

import dataclasses
import math

from harness.method import Method, texts_of
from harness.recipe import Recipe, Training
from harness.training.job import TrainingData
from harness.types import Source

MANY = 10**6  # steps of a run whose length is not known yet


def sources(method: Method, training: Training) -> set[Source]:
    """The sources of text that a run may request, also where its number of steps is not known yet."""
    if training.epochs is None:
        return texts_of(method, training.steps)
    return texts_of(method, 1) | texts_of(method, MANY)


def examples_of(method: Method, data: TrainingData, steps: int) -> int:
    """The number of examples in an epoch: the labelled ones for a method that trains on nothing else, else prompts."""
    only_labelled = texts_of(method, steps) <= {Source.DATA}
    return len(data.labelled if only_labelled and data.labelled else data.prompts or data.labelled)


def resolved(recipe: Recipe, method: Method, data: TrainingData) -> Recipe:
    """The recipe with ``training.steps`` set for a method and its data.

    A run of n epochs is the same training as one that says the same number of steps, and has the same id.
    """
    return over(recipe, examples_of(method, data, MANY)) if recipe.training.epochs is not None else recipe


def over(recipe: Recipe, examples: int) -> Recipe:
    """The same for a number of examples; an epoch's last step may take examples from the next one."""
    plan = recipe.training
    if plan.epochs is None:
        return recipe
    # Decimal fractions have no exact binary form, hence the rounding: 0.1 epochs of 30 examples are 3, not 4.
    places = round(plan.epochs * examples, 6)
    steps = math.ceil(places / plan.batch)
    return dataclasses.replace(recipe, training=dataclasses.replace(plan, steps=steps, epochs=None))
