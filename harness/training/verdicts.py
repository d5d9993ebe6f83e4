"""Verdicts on answers to training prompts, by the data's own grader: what rewards and success rates are made of.

The generated world grades its own prompts. Rows of a file are graded by a task: ``data.grader=TASK`` names one whose
format the rows have, such as the training file of a benchmark. Programs run in the sandbox, as in an evaluation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from harness import registry, user_code
from harness.errors import BadInput
from harness.models.files import MICRO
from harness.recipe import DataSources
from harness.task import Data, Task
from harness.training import examples
from harness.training_data import source
from harness.types import Completion, Example


class TextGrade(NamedTuple):
    """What a grader says of one text: the score in [0, 1], None where no verdict could be reached, and the reason."""

    score: float | None
    reason: str = ""


class Grader(Protocol):
    """Grades answers to training prompts. ``name`` is that of records."""

    name: str

    def verdicts(self, asked: Sequence[Example], texts: Sequence[str]) -> list[TextGrade]:
        """The verdict on each text as the answer to its prompt."""


class GeneratedGrader:
    """The rules of the generated world, which name the first line that its step checker finds wrong."""

    name = "generated"

    def verdicts(self, asked: Sequence[Example], texts: Sequence[str]) -> list[TextGrade]:
        from harness.micro import world

        verdicts = []
        for example, text in zip(asked, texts, strict=True):
            right = world.solved(example, text)
            verdicts.append(TextGrade(float(right), "right" if right else self._said(example, text)))
        return verdicts

    def _said(self, example: Example, text: str) -> str:
        from harness.micro import world

        lines = text.split("\n")
        for i, line in enumerate(lines):
            if line and world.check_step(example.meta, "".join(f"{done}\n" for done in lines[:i]), line) == 0.0:
                return f"This line is wrong: {line}"
        return "The answer is wrong."


class TaskGrader:
    """The grader of a task, on rows in the task's own format; prompts are found again by their text."""

    def __init__(self, task: Task, prompts: Sequence[Example]):
        if len(task.items) != len(prompts):
            raise BadInput(f"data.grader={task.name} reads {len(task.items)} problems for {len(prompts)} prompts")
        self.task, self.name = task, task.name
        self.items = {e.prompt.user: p.id for e, p in zip(prompts, task.items, strict=True)}

    def verdicts(self, asked: Sequence[Example], texts: Sequence[str]) -> list[TextGrade]:
        ids = [self.items.get(example.prompt.user) for example in asked]
        known = [i for i, problem in enumerate(ids) if problem is not None]
        given = [Completion(str(ids[i]), n, texts[i], 0, "stop") for n, i in enumerate(known)]
        found = [TextGrade(None, "the prompt is no problem of the grader's")] * len(texts)
        for i, verdict in zip(known, self.task.verdicts(given), strict=True):
            found[i] = TextGrade(None if verdict.error else float(verdict.score), verdict.reason)
        return found


def grader_of(sources: DataSources) -> Grader | None:
    """The grader of the training prompts; None where the data has none. Raises BadInput for one that cannot grade."""
    if sources.prompts.startswith(MICRO):
        if sources.grader is not None:
            rules = "generated prompts are graded by their own rules"
            raise BadInput(f"data.grader={sources.grader}: {rules}; leave it out")
        return GeneratedGrader()
    if sources.grader is None:
        return None
    task_class = registry.find(registry.TASKS, sources.grader)
    if task_class.needs_judge:
        raise BadInput(f"data.grader={sources.grader} asks a judge for every answer; name a task that grades by itself")
    rows = source.open_rows(sources.prompts, sources.limit)
    try:
        task = task_class(Data(rows.rows, "", f"training prompts {rows.name}"))
    except BadInput as error:
        raise BadInput(f"data.grader={sources.grader} cannot read {sources.prompts}: {error}") from None
    return TaskGrader(task, examples.load(sources.prompts, sources, labelled=False, limit=sources.limit))


def readers_of(sources: DataSources) -> list[str]:
    """The tasks that could be ``data.grader``: those that read the rows of the training prompts as their problems."""
    rows, found = source.open_rows(sources.prompts, sources.limit), []
    for entry in registry.entries(registry.TASKS):
        with contextlib.suppress(Exception):  # a task that fails on the rows, in whatever way, does not read them
            task = registry.find(registry.TASKS, entry.name)
            if not task.needs_judge and task(Data(rows.rows, "", "training prompts")).items:
                found.append(entry.name)
    return found


def identity_of(grader: str) -> dict[str, str]:
    """What the rewards of a training depend on beside its prompts: the task, its version and whose code it is."""
    task_class = registry.find(registry.TASKS, grader)
    return {"task": task_class.name, "version": task_class.version, "code": user_code.identity(task_class)}
