"""Determines, before any work, how a student is measured on a task: decoding, protocol, identity."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.evaluation import evaluate
from harness.models import files
from harness.records import record
from harness.types import Decoding

if TYPE_CHECKING:
    from harness.plan import Plan
    from harness.task import Task
    from harness.training.job import TrainingRun


@dataclass(frozen=True)
class Measurement:
    """``protocol``: all that the score depends on besides the weights. ``identity``: hash of training and protocol."""

    decoding: Decoding
    protocol: dict[str, Any]
    identity: str


def of(plan: Plan, training: TrainingRun, task: Task) -> Measurement:
    """The measurement that ``harness run`` makes of a training run on a task."""
    evaluation = plan.recipe.evaluation
    decoding = evaluate.decoding_of(task, evaluation)
    # Stop strings apply to continuations of plain text only, not to chat replies; the protocol records that.
    if decoding.stop and not task.measures_itself and _replies(plan, task):
        decoding = dataclasses.replace(decoding, stop=())
    protocol = evaluate.protocol_of(task, decoding, evaluation.limit, plan.template)
    return Measurement(decoding, protocol, record.identity_of(training.spec, protocol))


def cells(plan: Plan) -> Iterator[tuple[TrainingRun, Task, str | None]]:
    """All pairs of training run and task in the order of a run, with the run id of an existing record, or None."""
    for training in plan.trainings:
        for task in plan.tasks:
            existing = plan.store.find(of(plan, training, task).identity)
            yield training, task, None if existing is None else existing["run_id"]


def _replies(plan: Plan, task: Task) -> bool:
    """Whether the student begins every answer itself, as a chat model does."""
    codec = files.text_codec(plan.student)
    return all(
        p.prompt.chat and not p.prompt.prefill if codec is None else codec.begins_itself(p.prompt) for p in task.items
    )
