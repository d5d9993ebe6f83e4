"""The ``--set`` words that turn a recipe into that of a record's training."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from harness import options, specification
from harness.models import devices, loading
from harness.recipe import IN_SPEC, Recipe
from harness.records.record import method_label


def of_training(spec: Mapping[str, Any], chosen: Recipe) -> list[str]:
    """Differences between the recipe and ``spec`` in training, texts, student and teacher."""
    settings = []
    for section in IN_SPEC:
        recorded, own = spec.get(section) or {}, dataclasses.asdict(getattr(chosen, section))
        settings += [setting_of(f"{section}.{k}", v) for k, v in recorded.items() if k not in own or own[k] != v]
    for section in IN_SPEC:
        if not spec.get(section):
            continue
        # A setting that was added later is absent if the run behaved like all runs before it existed.
        own = getattr(chosen, section)
        before, set_here = options.later(own), options.set_apart(own)
        absent = sorted((before.keys() & set_here.keys()) - spec[section].keys() - {"dtype"})
        settings += [setting_of(f"{section}.{key}", before[key]) for key in absent]
    if dtype := devices.precision_of_spec(spec, chosen):
        settings.append(setting_of("rollout.dtype", dtype))
    return [*settings, *_before(spec, chosen), *_student(spec, chosen), *_teacher(spec, chosen), *_trust(spec, chosen)]


def _before(spec: Mapping[str, Any], chosen: Recipe) -> list[str]:
    """``before.*`` if the first stage differs from the recipe's."""
    after, own = spec.get("after"), dataclasses.asdict(chosen.before)
    if after is None:
        return [setting_of(f"before.{key}", None) for key, value in own.items() if value is not None]
    second = spec.get("training") or {}
    first = after["training"]
    # The first stage takes each setting from the second unless it has its own.
    settings = {key: None if first[key] == second.get(key) else first[key] for key in specification.FIRST_STAGE}
    settings["method"] = method_label(after["method"])
    return [setting_of(f"before.{key}", value) for key, value in settings.items() if own[key] != value]


def _student(spec: Mapping[str, Any], chosen: Recipe) -> list[str]:
    """``student.*`` if the trained part of the student differs from the recipe's."""
    own = json.loads(json.dumps(dataclasses.asdict(chosen.student)))
    recorded = spec.get("adapter") or {"adapter": "none"}
    return [setting_of(f"student.{k}", v) for k, v in recorded.items() if own.get(k) != v]


def _teacher(spec: Mapping[str, Any], chosen: Recipe) -> list[str]:
    """``teacher.*`` if the loading of the teacher differs from the recipe's."""
    own, recorded = (part.get("teacher_loading", {}) for part in (loading.in_spec(chosen.teacher), spec))
    keys = sorted(key for key in own.keys() | recorded.keys() if own.get(key) != recorded.get(key))
    return [setting_of(f"teacher.{key}", recorded.get(key)) for key in keys]


def _trust(spec: Mapping[str, Any], chosen: Recipe) -> list[str]:
    """``models.trust_remote_code`` if a model of the record ran its own code and the recipe does not allow it."""
    ran = any((spec.get(role) or {}).get("trust_remote_code") for role in ("student", "teacher"))
    return [setting_of("models.trust_remote_code", True)] if ran and not chosen.models.trust_remote_code else []


def setting_of(key: str, value: Any) -> str:
    """``key=value`` as ``--set`` reads it."""
    if isinstance(value, list | tuple):
        return f"{key}={','.join(map(str, value))}"
    if isinstance(value, bool) or value is None:
        return f"{key}={str(value).lower()}"
    return f"{key}={value!r}" if isinstance(value, float) else f"{key}={value}"
