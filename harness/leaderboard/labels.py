"""What sets rows apart, and protocols: only what is contested is said, so that most rows need no words."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from harness.leaderboard.inference import is_reference
from harness.records.record import Record, method_label

Facts = Mapping[str, Any]


def name_of(method: Mapping[str, Any]) -> str:
    """What a row is called: ``vcrd``, ``gkd@trl``; the control with shuffled weights is ``vcrd@shuffled``.

    ``method`` is the field of a record. The control is told by its setting, however it was asked for.
    """
    label = method_label(method)
    if method["settings"].get("shuffle") is not True or "shuffled" in (method["variant"] or ""):
        return label
    return f"{label}{'@' if method['variant'] is None else '+'}shuffled"


def facts_of(record: Record) -> dict[str, Any]:
    """Settings and recipe of a record under the names that set rows apart: ``beta``, ``training.steps``, …"""
    return dict(_flat(_recipe(record))) | dict(_flat(record["method"]["settings"]))


def of_protocols(protocols: Mapping[str, Sequence[Record]]) -> dict[str, str]:
    """For each protocol of a task, by hash: its values that others contradict, "" for a single protocol."""
    facts = {key: dict(_flat(members[0]["protocol"])) for key, members in sorted(protocols.items())}
    contested = _contested(facts.values()) - {"hash", "card"}
    unnamed = "protocol {}" if len(facts) > 1 else ""
    return {key: _listed(mine, contested) or unnamed.format(key) for key, mine in facts.items()}


def of_rows(firsts: Sequence[Record]) -> list[str]:
    """For one record of each row: settings contested within its method, and recipe contested among all trained."""
    settings = [dict(_flat(record["method"]["settings"])) for record in firsts]
    recipes = [dict(_flat(_recipe(record))) for record in firsts]
    by_method: dict[str, list[int]] = defaultdict(list)
    for i, record in enumerate(firsts):
        by_method[name_of(record["method"])].append(i)
    among_trained = _contested(recipes[i] for i, record in enumerate(firsts) if not is_reference(record))
    labels = [""] * len(firsts)
    for rows in by_method.values():
        own = _contested(settings[i] for i in rows)
        for i in rows:
            recipe = _contested(recipes[j] for j in rows) if is_reference(firsts[i]) else among_trained
            parts = (_listed(settings[i], own), _listed(recipes[i], recipe))
            labels[i] = ", ".join(part for part in parts if part)
    return labels


def _recipe(record: Record) -> dict[str, Any]:
    models = {"student": record["student"], "teacher": record["teacher"]}
    return models | {key: value for key, value in record["spec"].items() if key not in ("method", "seed")}


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``{"a": {"b": 1}}`` as ``("a.b", 1)``; None is left out, for in a specification it means "not used"."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    elif value is not None:
        yield prefix, value


def _contested(all_facts: Iterable[Facts]) -> set[str]:
    """The keys on which two of ``all_facts`` contradict each other; one that lacks a key contradicts nobody."""
    seen: dict[str, Any] = {}
    contested = set()
    for facts in all_facts:
        contested |= {key for key, value in facts.items() if seen.setdefault(key, value) != value}
    return contested


def _listed(facts: Facts, keys: set[str]) -> str:
    return ", ".join(f"{key}={_short(value)}" for key, value in facts.items() if key in keys)


def _short(value: Any) -> str:
    text = str(value)
    return f"{text[:8]}…" if len(text) >= 32 and text.isalnum() else text  # a hash is told by its beginning
