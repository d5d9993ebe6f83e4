"""How a trained student is measured on a task, decided before any work: decoding, protocol, identity."""

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
    """``protocol`` is everything that the score depends on besides the weights; ``identity`` adds the training."""

    decoding: Decoding
    protocol: dict[str, Any]
    identity: str


def of(plan: Plan, training: TrainingRun, task: Task) -> Measurement:
    """The measurement that ``harness run`` would make of a training run on a task."""
    evaluation = plan.recipe.evaluation
    decoding = evaluate.decoding_of(task, evaluation)
    # Stop strings end what a model continues; they never end a chat reply, and the protocol says so.
    if decoding.stop and not task.measures_itself and _replies(plan, task):
        decoding = dataclasses.replace(decoding, stop=())
    protocol = evaluate.protocol_of(task, decoding, evaluation.limit, plan.template)
    return Measurement(decoding, protocol, record.identity_of(training.spec, protocol))


def cells(plan: Plan) -> Iterator[tuple[TrainingRun, Task, str | None]]:
    """In the order of a run: the training run, the task, and the run id of what is recorded, or None."""
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
