"""Verdicts on answers to training prompts, by the data's own grader: what rewards and success rates are made of.

The generated world grades its own prompts. Rows of a file are graded by a task: ``data.grader=TASK`` names one whose
format the rows have, such as the training file of a benchmark. Programs run in the sandbox, as in an evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from harness import registry
from harness.errors import BadInput
from harness.models.files import MICRO
from harness.recipe import DataSources
from harness.task import Data, Task
from harness.training import examples
from harness.training_data import source
from harness.types import Completion, Example


class Grader(Protocol):
    """Grades answers to training prompts."""

    def scores(self, asked: Sequence[Example], texts: Sequence[str]) -> list[float | None]:
        """The score in [0, 1] of each text as the answer to its prompt; None where no verdict could be reached."""


class GeneratedGrader:
    """The rules of the generated world."""

    def scores(self, asked: Sequence[Example], texts: Sequence[str]) -> list[float | None]:
        from harness.micro import world

        return [float(world.solved(example, text)) for example, text in zip(asked, texts, strict=True)]


class TaskGrader:
    """The grader of a task, on rows in the task's own format; prompts are found again by their text."""

    def __init__(self, task: Task, prompts: Sequence[Example]):
        if len(task.items) != len(prompts):
            raise BadInput(f"data.grader={task.name} reads {len(task.items)} problems for {len(prompts)} prompts")
        self.task = task
        self.items = {e.prompt.user: p.id for e, p in zip(prompts, task.items, strict=True)}

    def scores(self, asked: Sequence[Example], texts: Sequence[str]) -> list[float | None]:
        ids = [self.items.get(example.prompt.user) for example in asked]
        known = [i for i, problem in enumerate(ids) if problem is not None]
        given = [Completion(str(ids[i]), n, texts[i], 0, "stop") for n, i in enumerate(known)]
        found: list[float | None] = [None] * len(texts)
        for i, verdict in zip(known, self.task.verdicts(given), strict=True):
            found[i] = None if verdict.error else float(verdict.score)
        return found


def grader_of(sources: DataSources) -> Grader | None:
    """The grader of the training prompts; None where the data has none. Raises BadInput for one that cannot grade."""
    if sources.prompts.startswith(MICRO):
        return GeneratedGrader()
    if sources.grader is None:
        return None
    found = registry.find(registry.TASKS, sources.grader)
    if found.needs_judge:
        raise BadInput(f"data.grader={sources.grader} asks a judge for every answer; name a task that grades by itself")
    rows = source.open_rows(sources.prompts, sources.limit)
    try:
        task = found(Data(rows.rows, "", f"training prompts {rows.name}"))
    except BadInput as error:
        raise BadInput(f"data.grader={sources.grader} cannot read {sources.prompts}: {error}") from None
    return TaskGrader(task, examples.load(sources.prompts, sources, labelled=False, limit=sources.limit))
