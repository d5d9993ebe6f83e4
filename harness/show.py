"""``harness list`` and ``harness show``: lists of methods, tasks and recipes, and the card of each.

Lists are read from source text without importing a method or a task, which is quick; cards import
only what they show.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import error_location, options, recipe, registry, user_code
from harness.errors import BadInput
from harness.leaderboard.text_tables import amount
from harness.method import Needs
from harness.metrics import Scale, scale_of
from harness.plan import settings_of, variants_of
from harness.records import reported
from harness.training import report

FULL = 80  # a longer line of a docstring was wrapped, so its text continues


def rows(kind: str) -> list[dict[str, Any]]:
    """The rows of ``harness list KIND``."""
    if kind == "recipes":
        recipes = [recipe.load(name) for name in recipe.names()]
        return [{"name": r.name, "world": r.world, "summary": r.summary} for r in recipes]
    return [_row(kind, entry) for entry in registry.entries(kind)]


def _row(kind: str, entry: registry.Entry) -> dict[str, Any]:
    facts = entry.facts
    summary = (facts.get("doc") or facts.get("module_doc") or "").split("\n")[0]
    row = {"name": entry.name, "summary": summary, "paper": facts.get("paper", ""), "owner": entry.owner}
    if kind == registry.METHODS:
        row |= {"needs": facts.get("needs", ""), "variants": facts.get("variants", [])}
        return row | {"note": facts.get("note", "")}
    return row | ({"version": facts.get("version", "")} if kind == registry.TASKS else {})


def text(kind: str, shown: Sequence[Mapping[str, Any]]) -> str:
    """The list as text."""
    width = max((len(row["name"]) for row in shown), default=0)
    lines = []
    for row in shown:
        lines.append(f"{row['name']:<{width}}  {row['summary'].replace('``', '`')}")
        aside = [row.get("note") or "", row.get("paper") or ""]
        aside += [_needs(row["needs"])] if row.get("needs") else []
        aside += [f"from {row['owner']}"] if row.get("owner", "built in") != "built in" else []
        aside += ["variants: " + ", ".join(f"@{v}" for v in row["variants"])] if row.get("variants") else []
        lines += [" " * (width + 2) + part for part in aside if part]
    return "\n".join(lines)


def _needs(words: str) -> str:
    """``teacher signal, gate?`` in words: the fixed needs, and those that depend on a setting."""
    parts = words.split(", ")
    always, chosen = [p for p in parts if not p.endswith("?")], [p[:-1] for p in parts if p.endswith("?")]
    always_needed = f"needs: {', '.join(always)}" if always else ""
    return "; ".join(filter(None, (always_needed, f"by its settings: {', '.join(chosen)}" if chosen else "")))


KINDS = ("method", "task", "recipe", "judge", "signal", "metric", "paper")  # in the order of look-up


def names(kind: str, results: Path) -> list[str]:
    """The names of one of :data:`KINDS`, without importing any of them."""
    if kind == "paper":
        return reported.names(results)
    return recipe.names() if kind == "recipe" else [entry.name for entry in registry.entries(f"{kind}s")]


def kinds_of(name: str, results: Path) -> list[str]:
    """The kinds with something called ``name``, which may include a variant or a world."""
    bare = registry.split(name)[0]
    return [kind for kind in KINDS if {name, bare} & set(names(kind, results))]


def overview(results: Path) -> dict[str, list[str]]:
    """The names of every kind."""
    return {f"{kind}s": names(kind, results) for kind in KINDS}


def overview_text(names_by_kind: Mapping[str, Sequence[str]]) -> str:
    """The names of every kind as text, with hints for more."""
    width = max(map(len, names_by_kind))
    lines = [f"{kind:<{width}}  {' '.join(names)}" for kind, names in names_by_kind.items()]
    return "\n".join([*lines, "", "harness list KIND describes each, harness show NAME shows one"])


_FACTS = {  # fields of a card besides name and docstring
    "judge": ("takes",),
    "signal": ("exact", "takes_top_k"),
    "metric": ("errors_count_as", "right_from", "scale"),
}


@error_location.faults_as(BadInput)
def card(kind: str, name: str) -> dict[str, Any]:
    """The facts of one method, task, recipe, judge, signal or metric. Raises BadInput for an unknown name."""
    if kind == "recipe":
        return {"recipe": name} | dataclasses.asdict(recipe.load(name))
    if kind == "method":
        bare, _, variant = registry.split(name)
        method_class = registry.find(registry.METHODS, bare)
        settings_of(method_class, name)
        return {
            "method": method_class.name,
            "variant": variant or None,
            "paper": method_class.paper,
            "note": method_class.note,
            "equation": inspect.getdoc(inspect.getmodule(method_class)) or "",
            "needs": dataclasses.asdict(method_class().needs),
            "reduction": method_class().reduction,
            "settings": options.describe(method_class.Config),
            "variants": {key: dict(value) for key, value in variants_of(method_class).items()},
        }
    if kind in _FACTS:
        registered = registry.find(f"{kind}s", name)
        facts = {fact: getattr(registered, fact) for fact in _FACTS[kind]}
        return {
            kind: registered.name,
            "about": inspect.getdoc(registered) or "",
            **{fact: value.card() if isinstance(value, Scale) else value for fact, value in facts.items()},
            "code": user_code.identity(registered),
        }
    from harness.evaluation.benchmarks import locate
    from harness.evaluation.cards import cards

    task_class, _ = locate(name)
    return {
        "task": task_class.name,
        "version": task_class.version,
        "family": task_class.family,
        "metric": task_class.metric,
        "about": (task_class.__doc__ or "").strip().replace("``", "`"),
        "dataset": dataclasses.asdict(task_class.dataset),
        "decoding": dataclasses.asdict(task_class.decoding),
        "grader": task_class.grader,
        "needs_judge": task_class.needs_judge,
        "paper": task_class.paper,
        "licence": task_class.licence,
        "note": task_class.note,
        "protocols": cards(name),
    }


def card_text(facts: Mapping[str, Any]) -> str:
    """A card as text: settings one per line with range and source."""
    lines = []
    for key, value in facts.items():
        if key in ("dataset", "decoding") and facts.get("protocols"):
            continue  # shown in the task's own protocol
        if key == "equation":
            lines += ["", *_unbroken(value), ""]
        elif key == "needs":
            usual = dataclasses.asdict(Needs())
            needs = _pairs({name: need for name, need in value.items() if need != usual[name]})
            lines.append(f"needs: {needs or 'nothing of the teacher'}")
        elif key == "variants":
            lines += [f"variant @{name}: {_pairs(changes)}" for name, changes in value.items()]
        elif key == "settings":
            lines += [_setting(s) for s in value] or ["settings: none"]
        elif key == "protocols":
            lines += _protocols(value)
        elif isinstance(value, Mapping):
            lines += [f"{key}:"] + [f"  {k}: {v}" for k, v in value.items()] if value else []
        elif value not in (None, ""):
            lines.append(f"{key}: {value}")
    return "\n".join(lines)


def _unbroken(docstring: str) -> Iterator[str]:
    """The lines of a docstring, each paragraph on one line for later wrapping; formulas keep their lines."""
    blocks = docstring.replace("``", "`").split("\n\n")
    for block in blocks:
        lines: list[str] = []
        for line in block.split("\n"):
            entry = re.match(r"\s*\S+ {2,}", line)  # NAME   description
            if lines and not block.startswith(" ") and not entry and len(lines[-1]) >= FULL:
                lines[-1] += " " + line.strip()
            else:
                lines.append(line)
        yield from (lines if block is blocks[-1] else [*lines, ""])


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(key if value is True else f"{key}={value}" for key, value in values.items())


def _protocols(cards: Sequence[Mapping[str, Any]]) -> list[str]:
    """The task's own protocol with all facts, then the changes of each published one."""
    own, lines = dict(_facts(cards[0])), []
    for card in cards:
        lines += ["", f"protocol: {card['name']}  (version {card['version']}, hash {card['hash'] or 'unknown'})"]
        if card is not cards[0] and card["hash"] and card["hash"] == cards[0]["hash"]:
            lines.append(f"  about: {card['about']}\n  measures the same as {cards[0]['name']}")
            continue
        lines += [f"  {key}: {fact}" for key, fact in _facts(card) if card is cards[0] or own.get(key) != fact]
    return lines


def _facts(card: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, value in card.items():
        if key in ("name", "version", "hash") or value in (None, ""):
            continue
        for name, fact in value.items() if isinstance(value, Mapping) else [("", value)]:
            quoted = repr(fact) if key == "prompt_of_first_item" or name == "stop" else str(fact)
            yield f"{key}.{name}".rstrip("."), quoted


def _cost(key: str, value: float) -> str:
    """A cost of a record; bytes and seconds with their units."""
    if key.endswith("_bytes"):
        return f"{key.removesuffix('_bytes')} {amount(value, 'B')}"
    if key.endswith("seconds"):
        return f"{key.removesuffix('seconds').replace('_', ' ')}{value:,.0f} s"
    return f"{key} {value:,.6g}"


def _setting(facts: Mapping[str, Any]) -> str:
    """A setting of a method: its default and range, and below them its meaning and where the default comes from."""
    if facts["choices"]:
        span = " | ".join(map(str, facts["choices"]))
    elif facts["low"] is not None or facts["high"] is not None:
        span = options.span_of(facts["low"], facts["high"])
    else:
        span = ""
    head = f"method.{facts['name']} = {facts['default']}  {span}".rstrip()
    return f"{head}\n    {facts['help']} (default: {facts['source']})"


def record_text(record: Mapping[str, Any]) -> str:
    """A record as text: the score first, then the conditions it was measured under."""
    counts, scale = record["counts"], scale_of(record)
    low, high = map(scale.text, record["interval"])
    note = record["method"]["note"]
    lines = [
        f"{record['run_id']}  ({record['kind']})",
        f"score      {scale.text(record['score'])}  95 % {low}–{high}  {record['metric']}"
        + (f", {scale.caption}" if scale.caption not in ("", "percent") else "")
        + f"; {record['interval_method']}",
        f"counts     {counts['correct']:g} of {counts['total']}, {counts['errors']} errors, "
        f"{counts['truncated']} truncated",
        f"method     {record['method']['name']}  {_pairs(record['method']['settings'])}"
        + (f"  [{note}]" if note else ""),
        f"models     {record['student']} <- {record['teacher']}, seed {record['seed']}",
        f"protocol   {record['protocol']['hash']}",
        "cost       " + ", ".join(_cost(key, value) for key, value in record["cost"].items()),
        "card       " + ", ".join(f"{key}={value}" for key, value in record["convention"].items()),
    ]
    lines += [f"weights    {name}: {words}" for name, words in report.weights_in_words(record).items()]
    lines += [f"asked      {record['first_prompt']!r}"] if "first_prompt" in record else []
    return "\n".join(lines + [f"warning    {warning}" for warning in record["warnings"]])
