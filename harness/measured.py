"""Assembles the record of a measurement; every field of a record is decided here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import options, registry, user_code
from harness.estimate import shapes
from harness.estimate.resources import DEVICES
from harness.estimate.shapes import token_flops
from harness.grading.judges import open_judge
from harness.launch import processes
from harness.method import Method, ReferencePoint
from harness.method_contract import REPORTED
from harness.models import adapters, engine_choice, loading
from harness.recipe import Adapter, Recipe, TeacherLoading
from harness.records import record
from harness.records.curves import HELD_OUT
from harness.request import Plan
from harness.training import job, several_teachers
from harness.training.job import TrainingRun
from harness.types import Source

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
    # Without a teacher model, the charged teacher passes are those of the student that teaches itself.
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
        **score.as_json(),
        "measures": outcome.figures,
        **weights(facts),
        **_engine(measurement, facts),
        "cost": cost,
        "speed": speed_of(cost, readers, precision, device_name(plan.device), processes.how_many()),
        **({"before": facts["before"]} if training.first is not None else {}),
        "first_prompt": outcome.first_prompt,
        "request": request(plan, training, task),
        **({"data": _data(plan, training, task, facts)} if training.spec.get("loop") else {}),
        "convention": convention_card(plan, training, facts),
        "provenance": record.provenance(plan.device),
        "warnings": list(outcome.warnings),
    }


def weights(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The token weights of a training: their report, and the means over training of the curve's values."""
    reported = facts.get("weights")
    if not reported:
        return {}
    curve = facts["curve"]
    own = sorted({name for row in curve for name in row} - REPORTED - {"grad_norm"})
    means = {name: sum(row[name] for row in curve if name in row) / len(curve) for name in own}
    return {"weights": {**reported, "means": means}}


def _engine(measurement: Measurement, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The engines that sampled the student and answered the tasks, if not a model in this process."""
    engines = {"rollout": facts["engine"]} if facts.get("engine") else {}
    if measurement.engine is not None:
        engines["evaluation"] = {"engine": engine_choice.described(measurement.engine, "evaluation.engine")}
    return {"engine": engines} if engines else {}


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
    """The name of a user's judge as given to --judge, which its identity need not contain; no addresses and paths."""
    if plan.request.judge is None or getattr(task.judge, "code", None) is None:
        return {}
    name, argument = open_judge.split(plan.request.judge)
    elsewhere = "://" in argument or Path(argument).is_absolute()
    return {"judge": ":".join(filter(None, (_portable(name), "" if elsewhere else argument)))}


def _data(plan: Plan, training: TrainingRun, task: Task, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The training data, as hashed in the specification, and its overlap with the problems of the task."""
    read_data = {name: read for name, read in plan.data.facts.items() if training.spec.get(name)}
    if facts["curve"] and (kl := facts["curve"][-1].get(HELD_OUT)) is not None:
        read_data["held_out"] = {
            **plan.data.facts.get("validation", {}),
            "forward_kl": kl,
            "steps": facts["cost"]["steps"],
        }
    shared = plan.data.overlaps.get(task.title)
    return read_data | ({"contamination": shared} if shared is not None else {})


def _setting(words: str) -> str:
    """A setting as typed, without paths, and without the address and speed of an engine."""
    key, _, value = words.partition("=")
    if key.endswith(".engine") and (choice := engine_choice.chosen(value, key)) is not None:
        return f"{key}={choice.word}"
    return "=".join(map(_portable, words.split("=", 1)))


def _portable(word: str) -> str:
    return Path(word).name if Path(word).is_absolute() else word


def _parameters(plan: Plan) -> dict[str, int | None]:
    """The number of parameters of each model, so that its cost can be counted without its files."""
    models = {"student": plan.student, "teacher": plan.teacher}
    return {side: None if m is None or m.url is not None else shapes.parameters(m) for side, m in models.items()}


def speed_of(
    cost: Mapping[str, Any],
    parameters: Mapping[str, int | None],
    precision: str | None,
    device: str,
    processes: int = 1,
) -> dict[str, float]:
    """``cost`` as the record has it, ``precision`` of the training (None where nothing trained), ``device`` by name.

    ``training_tokens_per_second`` are tokens through the student and those that were sampled, over the wall-clock
    seconds of the training and over all ``processes``; ``share_of_peak`` are its operations, counted from parameters
    and tokens, over those that the devices of all processes could do in that time.
    """
    speed = {}
    if cost["seconds"] > 0 and (tokens := cost["student_tokens"] + cost["generated_tokens"]):
        speed["training_tokens_per_second"] = tokens / cost["seconds"]
        student, teacher = parameters["student"], parameters["teacher"]
        taught, peak = cost["teacher_forward_tokens"], _peak(device, precision)
        if peak is not None and student is not None and (teacher is not None or not taught):
            own = cost["student_tokens"], taught, cost["generated_tokens"], cost.get("reference_forward_tokens", 0)
            spent = token_flops(student, teacher or 0, *own)
            speed["share_of_peak"] = spent / cost["seconds"] / peak / processes
    if cost["eval_seconds"] > 0 and cost["eval_generated_tokens"]:
        speed["evaluation_tokens_per_second"] = cost["eval_generated_tokens"] / cost["eval_seconds"]
    return speed


def _peak(device: str, precision: str | None) -> float | None:
    """Operations per second of a GPU with a known data sheet; None for a CPU, whose sheet does not tell it by type."""
    own = device.replace(" ", "")
    known = next((d for name, d in DEVICES.items() if "GB" in name and name.partition("-")[0] in own), None)
    return None if known is None or precision is None else known.peak(precision)


def device_name(device: str) -> str:
    """The product name of a GPU, given its torch name; any other device keeps that name."""
    if not device.startswith("cuda"):
        return device
    import torch

    return torch.cuda.get_device_name(torch.device(device))


# The convention card of a training: what two rows must share for their numbers to be comparable. Different code bases
# use one name for different losses; the card states the loss of this training.


def convention_card(plan: Plan, training: TrainingRun, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The card of a trained student; ``facts`` are those of its training.json."""
    method = training.method
    if isinstance(method, ReferencePoint):
        return {"trained": False}
    recipe = plan.recipe_of(method)
    texts = job.sources_of(method, recipe.training)
    sampled = texts & {Source.STUDENT, Source.MIXED}
    curve = facts["curve"]
    return {
        "divergence": "cross-entropy",
        "mixture_weight_of_teacher": None,
        "loss_temperature": 1.0,
        "temperature_squared_factor": False,
        "reduction": method.reduction,
        "token_weights": "none",
        "text": "+".join(sorted(texts)),
        "sampling_temperature": recipe.rollout.temperature if sampled else None,
        "teacher_text_temperature": recipe.teacher_text.temperature if Source.TEACHER in texts else None,
        **_signal(method, recipe.training.signal, facts.get("signal", {})),
        "vocabulary": "cut to the shared tokenizer's length, renormalised",
        "template": plan.template,
        **dict(plan.pair.card),
        **({} if training.first is None else {"after": training.first.label}),
        **_trained(recipe.student),
        **_teacher(training.spec, recipe.teacher),
        **({"teachers": several_teachers.in_words(plan.teachers, recipe.data.teacher_field)} if plan.teachers else {}),
        **_engines(training.spec, recipe),
        **({"rewards": plan.data.grader.name} if method.needs.rewards and plan.data.grader else {}),
        "on_policy_share": round(_mean(row["on_policy"] for row in curve), 4),
        "buffer_age": round(_mean(row["buffer_age"] for row in curve if row["on_policy"]), 4),
    } | method.card()


def _engines(spec: Mapping[str, Any], recipe: Recipe) -> dict[str, str]:
    """The engines that sampled the student and wrote the teacher's texts, if not a model in this process."""
    engines = {}
    if (word := (spec.get("rollout") or {}).get("engine")) is not None:
        cap, every = recipe.rollout.importance_cap, recipe.rollout.sync_every
        weighed = "no importance weights" if cap is None else f"importance weights up to {cap:g}"
        engines["rollout_engine"] = f"{word}, weights of every {every}. step, {weighed}"
    if (word := (spec.get("teacher_text") or {}).get("engine")) is not None:
        engines["teacher_text_engine"] = word
    return engines


def _trained(chosen: Adapter) -> dict[str, str]:
    """The trained weights, if not all of them."""
    if not adapters.wanted(chosen):
        return {}
    where = ", ".join(chosen.targets)
    dropped = f", dropout {chosen.dropout:g}" if chosen.dropout else ""
    message = f"{chosen.adapter}, rank {chosen.rank}, alpha {chosen.alpha:g}, on {where}{dropped}"
    return {"trained_weights": message}


def _teacher(spec: Mapping[str, Any], chosen: TeacherLoading) -> dict[str, str]:
    """How the teacher was loaded, if the recipe says it."""
    words = loading.in_words(chosen)
    return {"teacher_loaded": words} if words and spec.get("teacher") else {}


def _signal(method: Method, name: str, signal: Mapping[str, Any]) -> dict[str, Any]:
    """The signal of the teacher's distribution, and how a top-k signal treats the remaining mass."""
    if not signal:
        return {"teacher_signal": method.needs.teacher, "top_k_tail": None, "signal_bytes_per_token": None}
    cls, k = registry.find(registry.SIGNALS, name), signal.get("top_k")
    kind = f"top-{k}" if k else ("exact" if cls.exact else "inexact")
    # Text that is sampled again at every step has no cache, whatever the signal.
    kept = cls.source if signal.get("cached") else "live"
    if user_code.identity(cls) != user_code.OURS:
        kept = f"signal {cls.name}"
    return {
        "teacher_signal": f"{kind}, {kept}",
        "top_k_tail": "one bucket with all remaining mass" if k else ("none: exact signal" if cls.exact else "unknown"),
        "signal_bytes_per_token": signal.get("bytes_per_token"),
    }


def _mean(values) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0
