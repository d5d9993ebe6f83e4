"""Verdicts on answers to training prompts by the data's own grader, for rewards and success rates.

The generated world grades its own prompts. Rows of a file are graded by a task: ``data.grader=TASK`` names one whose
format the rows have, such as the training file of a benchmark. Programs run in the sandbox, as in an evaluation.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from harness import registry, user_code
from harness.errors import BadInput, RunFailed
from harness.method import Hindsight
from harness.models.files import MICRO
from harness.models.token_text import continuation
from harness.recipe import DataSources
from harness.task import Data, Task
from harness.training_data import source
from harness.training_data.examples import load as load_examples
from harness.types import Completion, Example, Prompt

if TYPE_CHECKING:
    from harness.models.generate import Generator
    from harness.training.batching import TrainingSequence
    from harness.training.report import Cost


class TextGrade(NamedTuple):
    """A grader's verdict on one text: the score in [0, 1], None without a verdict, and the reason."""

    score: float | None
    reason: str = ""


class Grader(Protocol):
    """Grades answers to training prompts. ``name`` is its name in records."""

    name: str

    def verdicts(self, examples: Sequence[Example], texts: Sequence[str]) -> list[TextGrade]:
        """The verdict on each text as the answer to its prompt."""


class GeneratedGrader:
    """The rules of the generated world, which report the first line that its step checker finds wrong."""

    name = "generated"

    def verdicts(self, examples: Sequence[Example], texts: Sequence[str]) -> list[TextGrade]:
        from harness.micro import world

        verdicts = []
        for example, text in zip(examples, texts, strict=True):
            right = world.solved(example, text)
            verdicts.append(TextGrade(float(right), "right" if right else self._feedback(example, text)))
        return verdicts

    def _feedback(self, example: Example, text: str) -> str:
        from harness.micro import world

        lines = text.split("\n")
        for i, line in enumerate(lines):
            if line and world.check_step(example.meta, "".join(f"{done}\n" for done in lines[:i]), line) == 0.0:
                return f"This line is wrong: {line}"
        return "The answer is wrong."


class TaskGrader:
    """The grader of a task, on rows in the task's own format; prompts are looked up by their text."""

    def __init__(self, task: Task, prompts: Sequence[Example]):
        if len(task.items) != len(prompts):
            raise BadInput(f"data.grader={task.name} reads {len(task.items)} problems for {len(prompts)} prompts")
        self.task, self.name = task, task.name
        self.items = {e.prompt.user: p.id for e, p in zip(prompts, task.items, strict=True)}

    def verdicts(self, examples: Sequence[Example], texts: Sequence[str]) -> list[TextGrade]:
        ids = [self.items.get(example.prompt.user) for example in examples]
        known = [i for i, problem in enumerate(ids) if problem is not None]
        completions = [Completion(str(ids[i]), n, texts[i], 0, "stop") for n, i in enumerate(known)]
        grades = [TextGrade(None, "the prompt is not among the grader's problems")] * len(texts)
        for i, verdict in zip(known, self.task.verdicts(completions), strict=True):
            grades[i] = TextGrade(None if verdict.error else float(verdict.score), verdict.reason)
        return grades


def grader_of(sources: DataSources) -> Grader | None:
    """The grader of the training prompts; None if the data has none. Raises BadInput for an unsuitable one."""
    if sources.prompts.startswith(MICRO):
        if sources.grader is not None:
            rules = "generated prompts have their own grader"
            raise BadInput(f"data.grader={sources.grader}: {rules}; leave it out")
        return GeneratedGrader()
    if sources.grader is None:
        return None
    task_class = registry.find(registry.TASKS, sources.grader)
    if task_class.needs_judge:
        raise BadInput(f"data.grader={sources.grader} needs a judge; name a task that grades by itself")
    rows = source.open_rows(sources.prompts, sources.limit)
    try:
        task = task_class(Data(rows.rows, "", f"training prompts {rows.name}"))
    except BadInput as error:
        raise BadInput(f"data.grader={sources.grader} cannot read {sources.prompts}: {error}") from None
    return TaskGrader(task, load_examples(sources.prompts, sources, labelled=False, limit=sources.limit))


def readers_of(sources: DataSources) -> list[str]:
    """Possible values of ``data.grader``: tasks that can read the rows of the training prompts as problems."""
    rows, readers = source.open_rows(sources.prompts, sources.limit), []
    for entry in registry.entries(registry.TASKS):
        with contextlib.suppress(Exception):  # a task that fails on the rows, in whatever way, cannot read them
            task = registry.find(registry.TASKS, entry.name)
            if not task.needs_judge and task(Data(rows.rows, "", "training prompts")).items:
                readers.append(entry.name)
    return readers


def identity_of(grader: str) -> dict[str, str]:
    """What rewards depend on besides the prompts: the task, its version and the origin of its code."""
    task_class = registry.find(registry.TASKS, grader)
    return {"task": task_class.name, "version": task_class.version, "code": user_code.identity(task_class)}


# Rewards: the data's own grader scores the texts of an optimizer step, and a teacher's prompt may use the scores.
#
# Only answers to training prompts are graded. One process has all responses to a prompt, so it can build a
# teacher prompt from them.


class Rewards:
    """Gives every text its score, and texts read in hindsight the teacher's prompt.

    ``asker`` renders and encodes prompts; a teacher's prompt and the text have ``room`` tokens at most, where bounded.
    """

    def __init__(self, grader: Grader, asker: Generator, hindsight: Hindsight | None, room: int | None):
        self.grader, self.asker, self.hindsight, self.room = grader, asker, hindsight, room

    def judge(
        self, sequences: Sequence[TrainingSequence], prompts: Sequence[Example], cost: Cost
    ) -> list[TrainingSequence]:
        """The sequences with ``reward`` set, and with ``teacher_prompt`` if there is a hindsight prompt.

        Raises RunFailed if no text could be graded.
        """
        began = time.monotonic()
        examples = [prompts[s.example] for s in sequences]
        texts = [continuation(self.asker.tokenizer, s.prompt, s.response) for s in sequences]
        verdicts = self.grader.verdicts(examples, texts)
        if sequences and all(verdict.score is None for verdict in verdicts):
            raise RunFailed(f"the grader failed on all {len(texts)} texts: {verdicts[0].reason}")
        judged = [dataclasses.replace(s, reward=v.score) for s, v in zip(sequences, verdicts, strict=True)]
        if self.hindsight is not None:
            hindsight_prompts = self._hindsight(judged, texts, verdicts, examples)
            judged = [
                dataclasses.replace(s, teacher_prompt=ids) for s, ids in zip(judged, hindsight_prompts, strict=True)
            ]
        cost.add(graded_texts=len(texts), grading_seconds=time.monotonic() - began)
        return judged

    def _hindsight(
        self,
        sequences: Sequence[TrainingSequence],
        texts: Sequence[str],
        verdicts: Sequence[TextGrade],
        examples: Sequence[Example],
    ) -> list[tuple[int, ...] | None]:
        """For each text the ids of the teacher's prompt; None if there is neither a solution nor feedback."""
        how, groups = self.hindsight, defaultdict(list)
        assert how is not None, "a teacher looks back"
        # Sort by place, so that the chosen solution does not depend on the order of collection.
        order = sorted(range(len(sequences)), key=lambda i: sequences[i].place)
        right = {i for i, v in enumerate(verdicts) if v.score is not None and v.score >= how.least}
        for i in order:
            if i in right:
                groups[sequences[i].example].append(i)
        ids_of_prompts: list[tuple[int, ...] | None] = []
        for i, (sequence, verdict, example) in enumerate(zip(sequences, verdicts, examples, strict=True)):
            others = [j for j in groups[sequence.example] if how.own or j != i]
            solution = how.solution.format(text=texts[others[0]]) if others else ""
            due = how.told == "always" or (how.told == "alone" and not others)
            due = due and i not in right and verdict.score is not None and bool(verdict.reason)
            feedback = how.feedback.format(text=verdict.reason) if due else ""
            ids = self._encoded(example.prompt, solution, feedback) if solution or feedback else None
            fits = ids is not None and (self.room is None or len(ids) + len(sequence.response) <= self.room)
            ids_of_prompts.append(ids if fits else None)
        return ids_of_prompts

    def _encoded(self, prompt: Prompt, solution: str, feedback: str) -> tuple[int, ...]:
        assert self.hindsight is not None, "a teacher looks back"
        # Only the template is a format string: braces in texts are kept.
        user, plain = (
            self.hindsight.template.format(prompt=text, solution=solution, feedback=feedback)
            for text in (prompt.user, prompt.plain)
        )
        whole = dataclasses.replace(prompt, user=user, plain=plain)
        return tuple(self.asker.encode(self.asker.render(whole)))


def reward_report(
    sequences: Sequence[TrainingSequence], prompts: int, gather: Callable[[list[Any]], list[Any]]
) -> dict[str, float]:
    """The mean ``text_reward`` of the step, and the share of its ``prompts`` whose texts all have one reward.

    The share is called ``groups_alike``. A collective: all processes call it, or none.
    """
    scored = gather([(s.place % prompts, s.reward) for s in sequences if s.reward is not None])
    groups: dict[int, set[float]] = {}
    for prompt, reward in scored:
        groups.setdefault(prompt, set()).add(reward)
    alike = sum(len(scores) == 1 for scores in groups.values())
    mean = math.fsum(reward for _, reward in scored) / len(scored)
    return {"text_reward": mean, "groups_alike": alike / len(groups)}
