"""What a plan would do, before it does it: every (training, task) with the record that exists already."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness.evaluation import evaluate
from harness.evaluation.lm_eval_task import LmEvalTask
from harness.records import record
from harness.task import Task

if TYPE_CHECKING:
    from harness.plan import Plan, Training


def cells(plan: Plan) -> Iterator[tuple[Training, Task, str | None]]:
    """In the order of a run: the training, the task, and the run id of what is recorded, or None."""
    for training in plan.trainings:
        for task in plan.tasks:
            existing = plan.store.find(identity(plan, training, task))
            yield training, task, None if existing is None else existing["run_id"]


def identity(plan: Plan, training: Training, task: Task) -> str:
    """The identity under which ``harness run`` records this training on this task."""
    evaluation = plan.recipe.evaluation
    decoding = task.decoding if isinstance(task, LmEvalTask) else evaluate.decoding_of(task, evaluation)
    protocol = evaluate.protocol_of(task, decoding, evaluation.limit, plan.template)
    return record.identity_of(training.spec, protocol)
