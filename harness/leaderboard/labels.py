"""Names rows and protocols by what differs between them, and writes the footnotes that a reader of a section needs.

A table names only what differs within it, so that most names stay short; ``rows.labels_of`` names the rows of several
tables in one place.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from harness.leaderboard.inference import Group
from harness.metrics import PERCENT
from harness.records.record import Record, fingerprint, method_label, roles_of
from harness.safe_read import printable

Facts = Mapping[str, Any]
LONGEST = 48  # characters of a value in a label
NONE = "none"  # in a label: another row has this setting and this one lacks it


def name_of(method: Mapping[str, Any]) -> str:
    """The name of a row: ``vcrd``, ``gkd@trl``, ``opd>grpo`` for a second stage; the control is ``vcrd@shuffled``.

    ``method`` is the field of a record. A control is recognised by its setting, whatever name the command used.
    """
    label = f"{method['after']}>{method_label(method)}" if method.get("after") else method_label(method)
    if method["settings"].get("shuffle") is not True or "shuffled" in (method["variant"] or ""):
        return label
    return f"{label}{'@' if method['variant'] is None else '+'}shuffled"


def facts_of(record: Record) -> dict[str, Any]:
    """Everything that can distinguish the row of a record, under its name in a label: ``beta``, ``training.steps``, …

    ``code`` is the origin of the method: the harness, a distribution with its version, or the hash of a file.
    """
    return dict(_flat(_recipe(record))) | dict(_flat(_of_method(record)))


def fact(record: Record, key: str) -> str:
    """One of :func:`facts_of` as text; ``none`` if the record lacks it."""
    return str(facts_of(record).get(key, NONE))


def names(firsts: Sequence[Record]) -> list[str]:
    """A unique name for each row, given one record of each."""
    return [joined(name_of(r["method"]), details) for r, details in zip(firsts, of_rows(firsts), strict=True)]


def joined(name: str, details: str) -> str:
    return printable(f"{name} ({details})" if details else name)


def of_protocols(protocols: Mapping[str, Sequence[Record]]) -> dict[str, str]:
    """For each protocol of a task, by hash: the values that differ from the others; "" for a single protocol."""
    facts = {key: dict(_flat(members[0]["protocol"])) for key, members in sorted(protocols.items())}
    contested = _contested(facts.values()) - {"hash", "card"}
    unnamed = "protocol {}" if len(facts) > 1 else ""
    return {key: _listed(values, contested) or unnamed.format(key) for key, values in facts.items()}


def of_rows(firsts: Sequence[Record]) -> list[str]:
    """The details of each row, given one record of each: settings that differ within its method, and the parts of the
    recipe that differ among all trained rows. No two rows of one name get equal details, see :func:`apart`.
    """
    settings = [dict(_flat(_of_method(record))) for record in firsts]
    recipes = [dict(_flat(_recipe(record))) for record in firsts]
    by_method: dict[str, list[int]] = defaultdict(list)
    for i, record in enumerate(firsts):
        by_method[name_of(record["method"])].append(i)
    references = [roles_of(record).reference for record in firsts]
    among_trained = _contested(recipes[i] for i, reference in enumerate(references) if not reference)
    details = [""] * len(firsts)
    for rows in by_method.values():
        # A setting that only newer records have distinguishes them from older ones with the same label.
        contested = _contested(settings[i] for i in rows) | _gained(settings[i] for i in rows)
        for i in rows:
            recipe = _contested(recipes[j] for j in rows) if references[i] else among_trained
            recipe = recipe - _implied(recipes, recipe)
            parts = (_listed(settings[i], contested), _listed(recipes[i], recipe))
            details[i] = ", ".join(part for part in parts if part)
    return apart([(name_of(r["method"]), words) for r, words in zip(firsts, details, strict=True)], firsts)


def apart(rows: Sequence[tuple[str, str]], firsts: Sequence[Record]) -> list[str]:
    """The details of ``rows`` (name, details), extended where two rows would have the same name.

    Adds facts that one row has and the other lacks (``beta=none``), or the hash of the whole specification if there is
    no such fact.
    """
    alike: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        alike[row].append(i)
    details = [words for _, words in rows]
    for same in (members for members in alike.values() if len(members) > 1):
        facts = {i: {key: short(value) for key, value in facts_of(firsts[i]).items()} for i in same}
        keys = dict.fromkeys(key for i in same for key in facts[i])
        differing = [key for key in keys if len({facts[i].get(key) for i in same}) > 1]
        more = {i: ", ".join(f"{key}={facts[i].get(key, NONE)}" for key in differing) for i in same}
        counts = Counter(more.values())
        for i in same:
            rest = f"specification {training(firsts[i])}" if counts[more[i]] > 1 else ""
            details[i] = ", ".join(filter(None, (details[i], more[i], rest)))
    return details


def training(record: Record) -> str:
    """The hash of the specification of a record without its seed: the same for all tasks of a row."""
    what = {"settings": record["method"]["settings"]} | {k: v for k, v in record["spec"].items() if k != "seed"}
    return fingerprint(what)[:12]


def said(label: str) -> str:
    """A label or details with models and the number of steps in plain words: ``gkd (beta=0.3, 340 steps)``."""
    label = re.sub(r"\b(student|teacher)\.id=", r"\1 ", label)
    return re.sub(r"\btraining\.steps=(\d+)", r"\1 steps", label)


def short(value: Any) -> str:
    """The value as a label writes it: a hash and a long text, such as a template, by their beginning."""
    words = " ".join(re.sub(r"\b([0-9a-f]{8})[0-9a-f]{8,}\b", r"\1…", str(value)).split())
    return words if len(words) <= LONGEST else f"{words[: LONGEST - 1]}…"


def _of_method(record: Record) -> dict[str, Any]:
    """The part of a record that belongs to its method: settings, requested variant, origin of the code."""
    method, spec = record["method"], record["spec"].get("method")
    origin = spec.get("origin") if isinstance(spec, Mapping) else None
    asked = {"variant": method["variant"]} if method["variant"] is not None else {}
    return asked | ({"code": origin} if origin else {}) | dict(method["settings"])


def _recipe(record: Record) -> dict[str, Any]:
    models = {"student": record["student"], "teacher": record["teacher"]}
    # Who teaches, and under which prompt, follows from the settings of the method.
    return models | {key: value for key, value in record["spec"].items() if key not in ("method", "seed", "asking")}


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``{"a": {"b": 1}}`` as ``("a.b", 1)``. Leaves out None, which means "not used" in a specification."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    elif value is not None:
        yield prefix, value


def _contested(all_facts: Iterable[Facts]) -> set[str]:
    """The keys to which two of ``all_facts`` give different values; a missing key differs from nothing."""
    seen: dict[str, Any] = {}
    contested = set()
    for facts in all_facts:
        contested |= {key for key, value in facts.items() if seen.setdefault(key, value) != value}
    return contested


def _implied(all_facts: Sequence[Facts], keys: set[str]) -> set[str]:
    """The hashes among ``keys`` that say no more than the id beside them: each id has one."""
    found = set()
    for key in keys:
        name = key.removesuffix("sha256") + "id"
        if key.endswith(".sha256") and name in keys:
            hashes = {(facts.get(name), facts.get(key)) for facts in all_facts}
            if len(hashes) == len({one for one, _ in hashes}):
                found.add(key)
    return found


def _gained(all_facts: Iterable[Facts]) -> set[str]:
    """The keys that some of ``all_facts`` have and others lack."""
    keys = [set(facts) for facts in all_facts]
    return set.union(*keys) - set.intersection(*keys) if keys else set()


def _listed(facts: Facts, keys: set[str]) -> str:
    return ", ".join(f"{key}={short(value)}" for key, value in facts.items() if key in keys)


# Footnotes of a section: what a reader must know before comparing its rows.
#
# They name generated problems, reconstructions and ties, conventions on which the methods differ, and what a single
# training seed leaves open. The interval of such a row covers its problems alone. Rounding on another CPU moves a
# score less than another seed does if the training text is fixed, and as much if the student trains on its own
# samples (measured in results/rounding), so the variance between seeds covers both.

MICRO = "micro world: generated problems, not the benchmark"
# What a method chooses; any other line should be equal on all cards of a table.
OF_THE_METHOD = {
    "divergence", "mixture_weight_of_teacher", "loss_temperature", "reduction", "token_weights", "teacher_signal",
    "text", "on_policy_share", "buffer_age", "signal_bytes_per_token", "trained",
}  # fmt: skip

DIFFER = "convention cards differ beyond the methods"
MICRO_POINTS = 2.9  # standard deviation between seeds of a score in the micro world, over results/micro
ENOUGH = 2  # degrees of freedom from which a table's own rows give the variance between seeds


def differences(groups: Sequence[Group]) -> list[str]:
    """One line on the lines of convention cards that differ among trained rows, with the methods behind each value.

    A card that says None has no such line: what samples nothing has no sampling temperature to differ in.
    """
    trained = [group for group in groups if not group.reference]
    keys = dict.fromkeys(key for group in trained for key in group.first["convention"] if key not in OF_THE_METHOD)
    lines = []
    for key in keys:
        by_value: dict[str, set[str]] = defaultdict(set)
        for group in trained:
            if group.first["convention"].get(key) is not None:
                by_value[str(group.first["convention"][key])].add(name_of(group.first["method"]))
        if len(by_value) > 1:
            values = " | ".join(f"{value} ({', '.join(sorted(names))})" for value, names in sorted(by_value.items()))
            lines.append(f"{key} {values}")
    return [f"{DIFFER}: {'; '.join(lines)}"] if lines else []


def single_seeds(groups: Sequence[Group]) -> list[str]:
    """The footnote on the trained rows of one seed; [] if there are none."""
    trained = [group for group in groups if not group.reference]
    if all(len(group.records) > 1 for group in trained):
        return []
    scale = groups[0].scale
    moves = "one seed: another seed or another CPU moves such a score by"
    spread = deviation(trained)
    if spread is not None:
        return [f"{moves} about {scale.text(spread)} {scale.points} (SD, from the rows of several seeds)"]
    if groups[0].first["world"] == "micro" and scale == PERCENT:
        return [f"{moves} about {MICRO_POINTS:g} points (SD, measured in results/micro and results/rounding)"]
    return [f"{moves} an amount that no row here reveals; run two more seeds (--seed 0 1 2)"]


def deviation(groups: Sequence[Group]) -> float | None:
    """The standard deviation of a score between seeds, pooled over the rows that have several; None with too few."""
    scores = [[record["score"] for record in group.records] for group in groups if len(group.records) > 1]
    freedom = sum(len(row) - 1 for row in scores)
    if freedom < ENOUGH:
        return None
    return math.sqrt(sum(float(np.var(row, ddof=1)) * (len(row) - 1) for row in scores) / freedom)
