"""What a plan would do, before it does it: every (training, task) with the record that exists already."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from harness.evaluation import evaluate
from harness.evaluation.lm_eval_task import LmEvalTask
from harness.models import files
from harness.records import record
from harness.task import Task
from harness.types import Decoding

if TYPE_CHECKING:
    from harness.plan import Plan, TrainingRun


def cells(plan: Plan) -> Iterator[tuple[TrainingRun, Task, str | None]]:
    """In the order of a run: the training, the task, and the run id of what is recorded, or None."""
    for training in plan.trainings:
        for task in plan.tasks:
            existing = plan.store.find(measurement(plan, training, task)[2])
            yield training, task, None if existing is None else existing["run_id"]


def measurement(plan: Plan, training: TrainingRun, task: Task) -> tuple[Decoding, dict[str, Any], str]:
    """How a training is measured on a task: decoding, protocol, and the identity under which it is recorded."""
    evaluation = plan.recipe.evaluation
    decoding = task.decoding if isinstance(task, LmEvalTask) else evaluate.decoding_of(task, evaluation)
    if decoding.stop and not isinstance(task, LmEvalTask) and _replies(plan, task):
        decoding = dataclasses.replace(decoding, stop=())  # see evaluate: they end no chat reply
    protocol = evaluate.protocol_of(task, decoding, evaluation.limit, plan.template)
    return decoding, protocol, record.identity_of(training.spec, protocol)


def _replies(plan: Plan, task: Task) -> bool:
    """Whether the student begins every answer itself, as a chat model does."""
    speaks = files.speaker(plan.student)
    return all(
        p.prompt.chat and not p.prompt.prefill if speaks is None else speaks.begins_itself(p.prompt) for p in task.items
    )
