"""The convention card of a training: what two rows must share for their numbers to be comparable.

Different code bases use one name for different losses. The card states the loss of this training: divergence, mixture,
reduction, temperatures, teacher signal, vocabulary, and the source of its text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness import registry, user_code
from harness.method import Method, ReferencePoint
from harness.models import adapters, loading
from harness.recipe import Adapter, Recipe, TeacherLoading
from harness.request import Plan
from harness.training import job, several_teachers
from harness.training.job import TrainingRun
from harness.types import Source


def card(plan: Plan, training: TrainingRun, facts: Mapping[str, Any]) -> dict[str, Any]:
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
        **({"teachers": several_teachers.told(plan.teachers, recipe.data.teacher_field)} if plan.teachers else {}),
        **_engines(training.spec, recipe),
        **({"rewards": plan.data.grader.name} if method.needs.rewards and plan.data.grader else {}),
        "on_policy_share": round(_mean(row["on_policy"] for row in curve), 4),
        "buffer_age": round(_mean(row["buffer_age"] for row in curve if row["on_policy"]), 4),
    } | method.card()


def _engines(spec: Mapping[str, Any], recipe: Recipe) -> dict[str, str]:
    """What sampled the student and what wrote the teacher's texts, where that was no model in this process."""
    found = {}
    if (word := (spec.get("rollout") or {}).get("engine")) is not None:
        cap, every = recipe.rollout.importance_cap, recipe.rollout.sync_every
        weighed = "no importance weights" if cap is None else f"importance weights up to {cap:g}"
        found["rollout_engine"] = f"{word}, weights of every {every}. step, {weighed}"
    if (word := (spec.get("teacher_text") or {}).get("engine")) is not None:
        found["teacher_text_engine"] = word
    return found


def _trained(chosen: Adapter) -> dict[str, str]:
    """Which weights were trained, where not all of them."""
    if not adapters.wanted(chosen):
        return {}
    where = ", ".join(chosen.targets)
    dropped = f", dropout {chosen.dropout:g}" if chosen.dropout else ""
    message = f"{chosen.adapter}, rank {chosen.rank}, alpha {chosen.alpha:g}, on {where}{dropped}"
    return {"trained_weights": message}


def _teacher(spec: Mapping[str, Any], chosen: TeacherLoading) -> dict[str, str]:
    """How the teacher was loaded, where the recipe says it."""
    said = loading.told(chosen)
    return {"teacher_loaded": said} if said and spec.get("teacher") else {}


def _signal(method: Method, name: str, signal: Mapping[str, Any]) -> dict[str, Any]:
    """What was known of the teacher's distribution, and what a top-k signal does with the rest of the mass."""
    if not signal:
        return {"teacher_signal": method.needs.teacher, "top_k_tail": None, "signal_bytes_per_token": None}
    cls, k = registry.find(registry.SIGNALS, name), signal.get("top_k")
    kind = f"top-{k}" if k else ("exact" if cls.exact else "inexact")
    # Text that every step samples anew has no cache, whatever the signal.
    kept = cls.source if signal.get("cached") else "live"
    if user_code.identity(cls) != user_code.OURS:
        kept = f"signal {cls.name}"
    return {
        "teacher_signal": f"{kind}, {kept}",
        "top_k_tail": "one bucket with all remaining mass" if k else ("none: exact signal" if cls.exact else "unknown"),
        "signal_bytes_per_token": signal.get("bytes_per_token"),
    }


def _mean(values) -> float:
    found = list(values)
    return sum(found) / len(found) if found else 0.0
