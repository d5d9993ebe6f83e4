"""Selects the two rows of a comparison: by name and settings, and by a shared budget if several rows have one name.

    kd                          the only row of that name
    kd:training.steps=340       the row with these settings, as its label states them; also kd[training.steps=340]
    --view steps, compute       the two of several rows that have equal steps, or equal compute

Without a view, two of several rows are selected only if equal recipes and equal compute select the same two. Otherwise
the request is refused, because another row of the same name may give the opposite answer.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import BadInput, unknown
from harness.leaderboard import COMPUTE, STEPS, equal_compute, inference, labels
from harness.leaderboard.equal_compute import View
from harness.leaderboard.inference import Group
from harness.records.record import Record, roles_of

Rows = list[Record]  # the seeds of one row
SHOWN = 12  # rows listed in a refusal


@dataclass(frozen=True)
class SelectedRow:
    """The row of one side. ``selector`` matches only this row; ``others`` match the other rows of its name."""

    requested: str
    selector: str
    records: Rows
    others: tuple[str, ...]
    rule: str  # the rule that selected it among several; "" if there was no choice

    def words(self) -> str:
        """``kd: took kd:training.steps=340 (340 steps; text=teacher; 2 runs, seeds 0, 1), others of this name: …``."""
        first, several = self.records[0], "" if len(self.records) == 1 else "s"
        settings = ", ".join(f"{key}={value}" for key, value in first["method"]["settings"].items())
        trained = "not trained" if roles_of(first).reference else f"{first['cost']['steps']:,} steps"
        runs = f"{len(self.records)} run{several}, seed{several} {', '.join(str(r['seed']) for r in self.records)}"
        text = f"{self.requested}: took {self.selector} ({'; '.join(filter(None, (trained, settings, runs)))})"
        text += f" by {self.rule}" if self.rule else ""
        return text + (f", others of this name: {', '.join(map(shlex.quote, self.others))}" if self.others else "")

    def as_json(self) -> dict[str, Any]:
        """The row for ``--json``, with its runs by id."""
        return {
            "asked": self.requested,
            "selector": self.selector,
            "run_ids": [record["run_id"] for record in self.records],
            "settings": self.records[0]["method"]["settings"],
            "steps": self.records[0]["cost"]["steps"],
            "others": list(self.others),
            "rule": self.rule,
        }


def of_name(members: Sequence[Record], title: str, requested: str) -> list[Record]:
    """The records that ``NAME``, ``NAME:key=value,…`` or ``NAME[key=value,…]`` selects."""
    name, conditions = _split(requested)
    named = [r for r in members if labels.name_of(r["method"]) == name]
    if not named:
        raise unknown(f"method among the records of {title}", name, {labels.name_of(r["method"]) for r in members})
    for condition in conditions:
        key, equals, value = condition.partition("=")
        known = {key for r in named for key in labels.facts_of(r)}
        if not equals or key not in known:
            raise unknown(f"setting in {requested!r}: NAME:key=value, key", key, known)
        values = {labels.fact(r, key) for r in named}
        named = [r for r in named if _is(labels.fact(r, key), value)]
        if not named:
            raise BadInput(f"{name} on {title} has no row with {condition}; {key} is {', '.join(sorted(values))}")
    return named


def _split(requested: str) -> tuple[str, list[str]]:
    """The name, and the conditions; a comma inside brackets belongs to a value."""
    brackets = re.fullmatch(r"([^:\[(]+)\[(.*)\]", requested, re.DOTALL)
    name, conditions = brackets.groups() if brackets else requested.partition(":")[::2]
    return name, [part.strip() for part in re.split(r",(?![^\[{(]*[\]})])", conditions) if part.strip()]


def _is(fact: str, value: str) -> bool:
    """Whether a fact has the typed value, written as in a record or as in a label."""
    return value in (fact, labels.short(fact), labels.short(fact).removesuffix("…"))


def choose(
    a: Sequence[Rows], b: Sequence[Rows], all_rows: Sequence[Rows], title: str, names: tuple[str, str], view: View
) -> tuple[SelectedRow, SelectedRow]:
    """Selects one row for each side. ``all_rows`` are all rows of the protocol, among which a name may have others.

    Raises BadInput with every candidate if the request does not determine two rows.
    """
    pairs = [(x, y) for x in a for y in b]
    rule = ""
    if len(pairs) > 1 or view.kind in (STEPS, COMPUTE):
        pairs, rule = _sharing_a_budget(pairs, view)
    if len(pairs) != 1:
        raise BadInput(_refusal(a, b, title, names, view, len(pairs)))
    first, second = (
        _selected_row(requested, chosen, all_rows, rule if len(rows) > 1 else "")
        for requested, chosen, rows in zip(names, pairs[0], (a, b), strict=True)
    )
    return first, second


def _sharing_a_budget(pairs: Sequence[tuple[Rows, Rows]], view: View) -> tuple[list[tuple[Rows, Rows]], str]:
    """The pairs that share the budget of ``view``; without one, those that share either, so that both must agree."""
    equal = [pair for pair in pairs if _equal_steps(*pair)]
    if view.kind == STEPS:
        return equal, "equal steps"
    costly = [pair for pair in pairs if _equal_compute(*pair, view.cost)]
    if view.kind == COMPUTE:
        return costly, f"equal compute ({view.cost}, {equal_compute.WITHIN})"
    equal = [pair for pair in equal if inference.one_recipe(pair[0][0], pair[1][0])]
    either = equal + [pair for pair in costly if pair not in equal]
    rules = [rule for rule, kept in (("equal recipe", equal), ("equal compute", costly)) if kept]
    return either, " and ".join(rules)


def _equal_steps(a: Rows, b: Rows) -> bool:
    """A reference point has no steps, so it compares with rows of any number of steps."""
    return _any_reference(a, b) or a[0]["cost"]["steps"] == b[0]["cost"]["steps"]


def _equal_compute(a: Rows, b: Rows, unit: str) -> bool:
    return _any_reference(a, b) or equal_compute.measured_alike(Group(a, None), Group(b, None), unit) is None


def _any_reference(a: Rows, b: Rows) -> bool:
    return roles_of(a[0]).reference or roles_of(b[0]).reference


def _selected_row(requested: str, chosen: Rows, all_rows: Sequence[Rows], rule: str) -> SelectedRow:
    name = labels.name_of(chosen[0]["method"])
    same = [rows for rows in all_rows if labels.name_of(rows[0]["method"]) == name]
    names = selectors(same)
    place = next(i for i, rows in enumerate(same) if rows[0]["run_id"] == chosen[0]["run_id"])
    return SelectedRow(
        requested, names[place], chosen, tuple(other for i, other in enumerate(names) if i != place), rule
    )


def selectors(rows: Sequence[Rows]) -> list[str]:
    """For each row of one name, a selector that no other row fits."""
    firsts = [row[0] for row in rows]
    texts = []
    for first in firsts:
        name, picked = labels.name_of(first["method"]), []
        rest = [other for other in firsts if other is not first]
        # Add facts until no other row fits; each time the fact that excludes most of the remaining rows.
        while rest:
            keys = [key for row in (first, *rest) for key in labels.facts_of(row)]
            left = {
                key: [o for o in rest if labels.fact(o, key) == labels.fact(first, key)] for key in dict.fromkeys(keys)
            }
            best = min(left, key=lambda key: len(left[key]))
            if len(left[best]) == len(rest):  # no fact distinguishes them
                break
            picked.append(f"{best}={_typed(labels.fact(first, best), [labels.fact(o, best) for o in rest])}")
            rest = left[best]
        texts.append(f"{name}:{','.join(picked)}" if picked else name)
    return texts


def _typed(fact: str, others: Sequence[str]) -> str:
    """The shortest form of the value that selects it."""
    short = labels.short(fact)
    return fact if short in map(labels.short, others) else short.removesuffix("…")


def _refusal(a: Sequence[Rows], b: Sequence[Rows], title: str, names: tuple[str, str], view: View, fits: int) -> str:
    """The refusal: the candidates, and how to name one."""
    lists = []
    for name, rows in zip(names, (a, b), strict=True):
        candidates = [shlex.quote(selector) for selector in selectors(rows)]
        more = f" and {len(candidates) - SHOWN} more" if len(candidates) > SHOWN else ""
        lists.append(f"{name} is {' or '.join(candidates[:SHOWN])}{more}" if len(candidates) > 1 else "")
    condition = {STEPS: "equal steps", COMPUTE: f"equal compute ({view.cost}, {equal_compute.WITHIN})"}.get(view.kind)
    what = (
        f"{'several pairs' if fits else 'no two rows'} have {condition}"
        if condition
        else "several rows have these names"
    )
    ways = "say which as NAME:key=value" + ("" if condition else ", or choose by --view steps or --view compute")
    return f"{' and '.join(names)} on {title}: {what}; {ways}: {'; '.join(filter(None, lists)) or _steps(a, b)}"


def _steps(a: Sequence[Rows], b: Sequence[Rows]) -> str:
    spent: Mapping[str, Any] = {labels.name_of(r[0]["method"]): r[0]["cost"]["steps"] for r in (*a, *b)}
    return ", ".join(f"{name} has {steps:,} steps" for name, steps in spent.items())
