"""Names rows and protocols by what differs between them.

A table names only what differs within it, so that most names stay short; ``rows.labels_of`` names the rows of several
tables in one place.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from harness.records.record import Record, fingerprint, method_label, roles_of
from harness.safe_read import printable

Facts = Mapping[str, Any]
LONGEST = 48  # characters of a value in a label
DIFFER = "convention cards differ beyond the methods"  # beginning of the footnote with the differences
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
    recipe that differ among all trained rows. Rows of one name never get equal details, see :func:`apart`.
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


def plain_label(label: str) -> str:
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
    variant = {"variant": method["variant"]} if method["variant"] is not None else {}
    return variant | ({"code": origin} if origin else {}) | dict(method["settings"])


def _recipe(record: Record) -> dict[str, Any]:
    models = {"student": record["student"], "teacher": record["teacher"]}
    # The settings of the method determine who teaches, and under which prompt.
    recipe = {key: value for key, value in record["spec"].items() if key not in ("method", "seed", "asking")}
    # A student whose teacher reads the solutions answers the labelled examples, by its method and not by its recipe.
    if (record["spec"].get("asking") or {}).get("template") and recipe.get("prompts"):
        recipe["labelled"] = recipe.pop("prompts")
    return models | recipe


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """``{"a": {"b": 1}}`` as ``("a.b", 1)``. Leaves out None, which means "not used" in a specification."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    elif value is not None:
        yield prefix, value


def _contested(all_facts: Iterable[Facts]) -> set[str]:
    """The keys to which two of ``all_facts`` give different values; a missing key differs from nothing."""
    first_values: dict[str, Any] = {}
    contested = set()
    for facts in all_facts:
        contested |= {key for key, value in facts.items() if first_values.setdefault(key, value) != value}
    return contested


def _implied(all_facts: Sequence[Facts], keys: set[str]) -> set[str]:
    """The hashes among ``keys`` that add nothing to the id next to them, because each id has one hash."""
    implied = set()
    for key in keys:
        name = key.removesuffix("sha256") + "id"
        if key.endswith(".sha256") and name in keys:
            hashes = {(facts.get(name), facts.get(key)) for facts in all_facts}
            if len(hashes) == len({one for one, _ in hashes}):
                implied.add(key)
    return implied


def _gained(all_facts: Iterable[Facts]) -> set[str]:
    """The keys that some of ``all_facts`` have and others lack."""
    keys = [set(facts) for facts in all_facts]
    return set.union(*keys) - set.intersection(*keys) if keys else set()


def _listed(facts: Facts, keys: set[str]) -> str:
    return ", ".join(f"{key}={short(value)}" for key, value in facts.items() if key in keys)
