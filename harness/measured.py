"""Assembles the record of a measurement; every field of a record is decided here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import convention, options
from harness.estimate import model_size, speed
from harness.grading.judges import open_judge
from harness.launch import processes
from harness.method import ReferencePoint
from harness.method_contract import REPORTED
from harness.models import engine_choice
from harness.records import provenance, record

if TYPE_CHECKING:
    from harness.evaluation.evaluate import Score
    from harness.evaluation.measurement import Measurement
    from harness.request import Plan
    from harness.task import Task
    from harness.training.job import TrainingRun


def run_id(training: TrainingRun, task: Task, identity: str, attempt: int) -> str:
    """The name of a record: ``METHOD-TASK-sSEED-HASH``, with the attempt where it supersedes another."""
    method = {"name": training.method.name, "variant": training.variant}
    return record.run_id(method, task.title, training.seed, identity, attempt)


def title(training: TrainingRun, task: Task) -> str:
    """One line on what is measured, with a mark for generated problems and the method's note."""
    generated = " (generated problems, not the benchmark)" if task.data.world != "real" else ""
    note = f"; {training.method.note}" if training.method.note else ""
    return f"{training.label} on {task.title}{generated}{note}"


@dataclass(frozen=True)
class Outcome:
    """The outcome of an evaluation: graded rows, score, other figures, the first prompt, warnings, seconds."""

    graded: Sequence[Mapping[str, Any]]
    score: Score
    figures: Mapping[str, Any]
    first_prompt: str
    warnings: Sequence[str]
    seconds: float


def assemble(
    plan: Plan,
    training: TrainingRun,
    task: Task,
    measurement: Measurement,
    facts: Mapping[str, Any],
    outcome: Outcome,
) -> dict[str, Any]:
    """The record without its names (run id, attempt, superseded record); ``facts`` are those of the training."""
    method = training.method
    stages = (training.spec, training.spec.get("after") or {})
    trained_with_teacher = plan.teacher is not None and any(spec.get("teacher") for spec in stages)
    score, parameters = outcome.score, _parameters(plan)
    cost = facts["cost"] | {
        "eval_seconds": outcome.seconds,
        "eval_generated_tokens": sum(row["tokens"] for row in outcome.graded),
    }
    precision = (training.spec.get("training") or {}).get("precision")
    # Without a teacher the passes that are charged to one are those of the student that teaches itself.
    readers = parameters if trained_with_teacher else parameters | {"teacher": parameters["student"]}
    return {
        "identity": measurement.identity,
        "kind": "measured",
        "method": {
            "name": method.name,
            "variant": training.variant,
            "paper": method.paper,
            "role": method.role,
            "evaluates": method.evaluates if isinstance(method, ReferencePoint) else None,
            "baseline": method.baseline,
            "reconstruction": method.reconstruction,
            "note": method.note,
            "settings": options.spelt(method.config),
            **({} if training.first is None else {"after": training.first.label}),
        },
        "task": task.title,
        "world": task.data.world,
        "family": task.family,
        "metric": task.metric,
        **({"metric_card": score.metric_card} if score.metric_card else {}),
        "seed": training.seed,
        "student": plan.student.id,
        "teacher": plan.teacher.id if trained_with_teacher else None,
        "parameters": parameters,
        "spec": training.spec,
        "training_id": training.training_id,
        "protocol": measurement.protocol,
        "score": score.value,
        "interval": list(score.interval),
        "interval_method": score.interval_method,
        "counts": score.counts,
        "measures": outcome.figures,
        **weights(facts),
        **_engine(measurement, facts),
        "cost": cost,
        "speed": speed.of(cost, readers, precision, speed.name_of(plan.device), processes.how_many()),
        **({"before": facts["before"]} if training.first is not None else {}),
        "first_prompt": outcome.first_prompt,
        "request": request(plan, training, task),
        **({"data": _data(plan, training, task, facts)} if training.spec.get("loop") else {}),
        "convention": convention.card(plan, training, facts),
        "provenance": provenance.collect(plan.device),
        "warnings": list(outcome.warnings),
    }


def weights(facts: Mapping[str, Any]) -> dict[str, Any]:
    """How the token weights of a training fell: their report, and the means over training of what its curve holds."""
    found = facts.get("weights")
    if not found:
        return {}
    curve = facts["curve"]
    own = sorted({name for row in curve for name in row} - REPORTED - {"grad_norm"})
    means = {name: sum(row[name] for row in curve if name in row) / len(curve) for name in own}
    return {"weights": {**found, "means": means}}


def _engine(measurement: Measurement, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What sampled the student in training and what answered, where that was no model in the process of the run."""
    found = {"rollout": facts["engine"]} if facts.get("engine") else {}
    if measurement.engine is not None:
        found["evaluation"] = {"engine": engine_choice.described(measurement.engine, "evaluation.engine")}
    return {"engine": found} if found else {}


def request(plan: Plan, training: TrainingRun, task: Task) -> dict[str, Any]:
    """The request as typed, for ``harness show RUN_ID --command``. Absolute paths are reduced to the file name."""
    words = dict(zip((id(task) for task in plan.tasks), dict.fromkeys(plan.request.tasks), strict=True))
    return {
        "method": _portable(training.word),
        "task": _portable(words[id(task)]),
        "recipe": _portable(str(plan.request.recipe)),
        "settings": [_setting(setting) for setting in plan.request.settings],
        **_judge(plan, task),
    }


def _judge(plan: Plan, task: Task) -> dict[str, str]:
    """The word of a judge that does not ship, whose identity need not tell it. Addresses and paths are left out."""
    if plan.request.judge is None or getattr(task.judge, "code", None) is None:
        return {}
    name, argument = open_judge.split(plan.request.judge)
    elsewhere = "://" in argument or Path(argument).is_absolute()
    return {"judge": ":".join(filter(None, (_portable(name), "" if elsewhere else argument)))}


def _data(plan: Plan, training: TrainingRun, task: Task, facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the training read, as its specification hashes it, and what that shares with the problems of the task."""
    found = {name: read for name, read in plan.data.facts.items() if training.spec.get(name)}
    if facts["curve"] and (kl := facts["curve"][-1].get("held_out_kl")) is not None:
        found["held_out"] = {**plan.data.facts.get("validation", {}), "forward_kl": kl, "steps": facts["cost"]["steps"]}
    shared = plan.data.overlaps.get(task.title)
    return found | ({"contamination": shared} if shared is not None else {})


def _setting(words: str) -> str:
    """A setting as typed, without paths, and without address and speed of an engine."""
    key, _, value = words.partition("=")
    if key.endswith(".engine") and (choice := engine_choice.chosen(value, key)) is not None:
        return f"{key}={choice.word}"
    return "=".join(map(_portable, words.split("=", 1)))


def _portable(word: str) -> str:
    return Path(word).name if Path(word).is_absolute() else word


def _parameters(plan: Plan) -> dict[str, int | None]:
    """The number of parameters of each model, so that its cost can be counted without its files."""
    models = {"student": plan.student, "teacher": plan.teacher}
    return {side: None if m is None or m.url is not None else model_size.parameters(m) for side, m in models.items()}
