"""Determines, before any work, how a student is measured on a task: decoding, protocol, identity."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness import user_code
from harness.method import ReferencePoint
from harness.metrics import code_of
from harness.models import engine_choice, files, loading
from harness.models.engine_choice import EngineChoice
from harness.models.files import ModelFiles
from harness.recipe import Evaluation
from harness.records import record
from harness.records.record import fingerprint
from harness.task import Task
from harness.types import Decoding, Problem

if TYPE_CHECKING:
    from harness.request import Plan
    from harness.training.job import TrainingRun

CHANGED = ", decoding changed"  # follows the name of a protocol whose decoding was overridden


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
    decoding = decoding_of(task, evaluation)
    # Stop strings apply to continuations of plain text only, not to chat replies; the protocol records that.
    model = _model_asked(plan, training)
    if decoding.stop and not task.measures_itself and _replies(model, task):
        decoding = dataclasses.replace(decoding, stop=())
    template = plan.template if model == plan.pair.student else files.template_hash(model)
    engine = None if model.url else _engine(plan, training)
    word = None if engine is None else engine.word
    protocol = protocol_of(task, decoding, evaluation.limit, template, evaluation.dtype, word)
    return Measurement(decoding, protocol, record.identity_of(training.spec, protocol), engine)


def cells(plan: Plan) -> Iterator[tuple[TrainingRun, Task, str | None]]:
    """All pairs of training run and task in the order of a run, with the run id of an existing record, or None."""
    for training in plan.trainings:
        for task in plan.tasks:
            existing = plan.store.find(of(plan, training, task).identity)
            yield training, task, None if existing is None else existing["run_id"]


def _engine(plan: Plan, training: TrainingRun) -> EngineChoice | None:
    """The engine that answers: the evaluation's, else the teacher's if the teacher is evaluated and has one."""
    engine = engine_choice.chosen(plan.recipe.evaluation.engine, "evaluation.engine")
    if engine is None and isinstance(training.method, ReferencePoint) and training.method.evaluates == "teacher":
        return loading.engine_of(plan.recipe.teacher)
    return engine


def _model_asked(plan: Plan, training: TrainingRun) -> ModelFiles:
    """The model whose format renders the task: a trained student uses its pair's, others use their own."""
    if not isinstance(training.method, ReferencePoint):
        return plan.pair.student
    model = plan.teacher if training.method.evaluates == "teacher" else plan.student
    assert model is not None, "the plan locates the teacher for a reference point that evaluates it"
    return model


def _replies(model: ModelFiles, task: Task) -> bool:
    """Whether the model starts every answer itself, as a chat model does."""
    codec = files.text_codec(model)
    return all(
        p.prompt.chat and not p.prompt.prefill if codec is None else codec.begins_itself(p.prompt) for p in task.items
    )


def decoding_of(task: Task, plan: Evaluation) -> Decoding:
    """The task's decoding with the recipe's overrides, which do not apply to a task that measures itself."""
    if task.measures_itself:
        return task.decoding
    overrides = {
        name: value
        for name in ("samples", "temperature", "top_p", "max_new_tokens")
        if (value := getattr(plan, name)) is not None
    }
    return dataclasses.replace(task.decoding, **overrides)


def problems_of(task: Task, limit: int | None) -> list[Problem]:
    return task.items if limit is None else task.items[:limit]


def protocol_of(
    task: Task,
    decoding: Decoding,
    limit: int | None,
    template: str,
    dtype: str = "float32",
    engine: str | None = None,
) -> dict[str, Any]:
    """Everything that a score depends on besides the weights; scores compare only under equal ``hash``.

    ``dtype``: the type of the weights that answer; the protocol names it only if it is not float32.

    The hash excludes mere names of the measurement: the requested published protocol, if any, and
    ``card``, the hash of the protocol card as printed by ``harness show task``. ``engine``: what answers, if not
    the model in this process.
    """
    # A plain-text prompt does not pass through a template, so the model's template is not part of its protocol.
    problems = problems_of(task, limit)
    protocol = (
        _code(task)
        | code_of(task)
        | {
            "task": task.title,
            "version": task.version,
            "metric": task.metric,
            "dataset": {
                "source": task.data.source,
                "sha256": task.data.sha256,
                "n": len(problems),
                "of": len(task.items),
            },
            "prompts_sha256": _prompts_hash(problems),
            "template": template if any(p.prompt.chat for p in problems) else "none: plain text",
            "decoding": dataclasses.asdict(decoding) | {"stop": list(decoding.stop)},
            "grader": task.grader_identity(),
        }
        | ({} if dtype == "float32" else {"dtype": dtype})
        | ({"engine": engine} if engine else {})
    )
    # Names are added after the hash, so that one measurement has one hash under any name.
    names = {"hash": fingerprint(protocol)[:12], "card": card_hash(task)}
    if task.protocol is not None:
        names["name"] = task.protocol if decoding == task.decoding else task.protocol + CHANGED
    return protocol | names


def card_hash(task: Task) -> str:
    """The hash of everything that is fixed without a model, a judge or a limit: data, prompts, decoding, grader."""
    grader = {key: value for key, value in task.grader_identity().items() if key != "judge"}
    card = (
        _code(task)
        | code_of(task)
        | {
            "task": task.title,
            "version": task.version,
            "dataset_sha256": task.data.sha256,
            "prompts_sha256": _prompts_hash(task.items),
            "chat": all(p.prompt.chat for p in task.items),
            "decoding": dataclasses.asdict(task.decoding) | {"stop": list(task.decoding.stop)},
            "grader": grader,
            "judge_protocol": getattr(task, "judge_protocol", None),
        }
    )
    return fingerprint(card)[:12]


def _code(task: Task) -> dict[str, str]:
    """The identity of the code of a task that does not ship with the harness; the version identifies one that does."""
    code = user_code.identity(type(task))
    return {} if code == user_code.OURS else {"code": code}


def _prompts_hash(problems: Sequence[Problem]) -> str:
    prompts = [[p.id, p.prompt.system, p.prompt.user, p.prompt.plain, p.prompt.prefill] for p in problems]
    return hashlib.sha256(json.dumps(prompts).encode()).hexdigest()
