"""Determines, before any work, how a student is measured on a task: decoding, protocol, identity."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.evaluation import evaluate
from harness.method import ReferencePoint
from harness.models import engine_choice, files, loading
from harness.models.engine_choice import EngineChoice
from harness.models.files import ModelFiles
from harness.records import record
from harness.types import Decoding

if TYPE_CHECKING:
    from harness.request import Plan
    from harness.task import Task
    from harness.training.job import TrainingRun


@dataclass(frozen=True)
class Measurement:
    """``protocol``: all that the score depends on besides the weights. ``identity``: hash of training and protocol.

    ``engine``: what answers, None for the model in this process.
    """

    decoding: Decoding
    protocol: dict[str, Any]
    identity: str
    engine: EngineChoice | None = None


def of(plan: Plan, training: TrainingRun, task: Task) -> Measurement:
    """The measurement that ``harness run`` makes of a training run on a task."""
    evaluation = plan.recipe.evaluation
    decoding = evaluate.decoding_of(task, evaluation)
    # Stop strings apply to continuations of plain text only, not to chat replies; the protocol records that.
    asked = _asked(plan, training)
    if decoding.stop and not task.measures_itself and _replies(asked, task):
        decoding = dataclasses.replace(decoding, stop=())
    template = plan.template if asked == plan.pair.student else files.template_hash(asked)
    engine = None if asked.url else _engine(plan, training)
    word = None if engine is None else engine.word
    protocol = evaluate.protocol_of(task, decoding, evaluation.limit, template, evaluation.dtype, word)
    return Measurement(decoding, protocol, record.identity_of(training.spec, protocol), engine)


def cells(plan: Plan) -> Iterator[tuple[TrainingRun, Task, str | None]]:
    """All pairs of training run and task in the order of a run, with the run id of an existing record, or None."""
    for training in plan.trainings:
        for task in plan.tasks:
            existing = plan.store.find(of(plan, training, task).identity)
            yield training, task, None if existing is None else existing["run_id"]


def _engine(plan: Plan, training: TrainingRun) -> EngineChoice | None:
    """What answers: the engine of the evaluation, else of the teacher where that is measured and lives in one."""
    engine = engine_choice.chosen(plan.recipe.evaluation.engine, "evaluation.engine")
    if engine is None and isinstance(training.method, ReferencePoint) and training.method.evaluates == "teacher":
        return loading.engine_of(plan.recipe.teacher)
    return engine


def _asked(plan: Plan, training: TrainingRun) -> ModelFiles:
    """The model whose format renders the task: a trained student has that of its pair, others have their own."""
    if not isinstance(training.method, ReferencePoint):
        return plan.pair.student
    found = plan.teacher if training.method.evaluates == "teacher" else plan.student
    assert found is not None, "the plan locates the teacher for a reference point that evaluates it"
    return found


def _replies(model: ModelFiles, task: Task) -> bool:
    """Whether a model begins every answer itself, as a chat model does."""
    codec = files.text_codec(model)
    return all(
        p.prompt.chat and not p.prompt.prefill if codec is None else codec.begins_itself(p.prompt) for p in task.items
    )
