"""Which rows a comparison means: found by name and settings, and by a shared budget where a name has several.

    kd                          the one row of that name
    kd:training.steps=340       the one with these facts, as a label has them; also kd[training.steps=340]
    --view steps, compute       of several, the two that have equal steps, or equal compute

Without a view two rows of several are taken only where equal recipes and equal compute lead to the same two. Otherwise
nothing is chosen: another row of the same name may say the opposite.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import BadInput, unknown
from harness.leaderboard import equal_compute, inference, labels
from harness.leaderboard.inference import Group
from harness.leaderboard.views import COMPUTE, STEPS, View
from harness.records import roles
from harness.records.record import Record

Rows = list[Record]  # the seeds of one row
SHOWN = 12  # rows listed in a refusal


@dataclass(frozen=True)
class Taken:
    """The row of one side. ``selector`` names it alone; ``others`` are the selectors of the other rows of its name."""

    asked: str
    selector: str
    records: Rows
    others: tuple[str, ...]
    rule: str  # why this one of several; "" where there was no choice

    def words(self) -> str:
        """``kd: took kd:training.steps=340 (340 steps; text=teacher; 2 runs, seeds 0, 1), others of this name: …``."""
        first, several = self.records[0], "" if len(self.records) == 1 else "s"
        settings = ", ".join(f"{key}={value}" for key, value in first["method"]["settings"].items())
        trained = "not trained" if roles.of(first).reference else f"{first['cost']['steps']:,} steps"
        runs = f"{len(self.records)} run{several}, seed{several} {', '.join(str(r['seed']) for r in self.records)}"
        said = f"{self.asked}: took {self.selector} ({'; '.join(filter(None, (trained, settings, runs)))})"
        said += f" by {self.rule}" if self.rule else ""
        return said + (f", others of this name: {', '.join(map(shlex.quote, self.others))}" if self.others else "")

    def as_json(self) -> dict[str, Any]:
        """What ``--json`` says of it: the runs by id."""
        return {
            "asked": self.asked,
            "selector": self.selector,
            "run_ids": [record["run_id"] for record in self.records],
            "settings": self.records[0]["method"]["settings"],
            "steps": self.records[0]["cost"]["steps"],
            "others": list(self.others),
            "rule": self.rule,
        }


def of_name(members: Sequence[Record], title: str, asked: str) -> list[Record]:
    """The records that ``NAME``, ``NAME:key=value,…`` or ``NAME[key=value,…]`` means."""
    name, wanted = _split(asked)
    named = [r for r in members if labels.name_of(r["method"]) == name]
    if not named:
        raise unknown(f"method among the records of {title}", name, {labels.name_of(r["method"]) for r in members})
    for condition in wanted:
        key, equals, value = condition.partition("=")
        known = {key for r in named for key in labels.facts_of(r)}
        if not equals or key not in known:
            raise unknown(f"setting in {asked!r}: NAME:key=value, key", key, known)
        values = {labels.fact(r, key) for r in named}
        named = [r for r in named if _is(labels.fact(r, key), value)]
        if not named:
            raise BadInput(f"{name} on {title} has no row with {condition}; {key} is {', '.join(sorted(values))}")
    return named


def _split(asked: str) -> tuple[str, list[str]]:
    """The name, and the conditions; a comma inside brackets belongs to a value."""
    found = re.fullmatch(r"([^:\[(]+)\[(.*)\]", asked, re.DOTALL)
    name, wanted = found.groups() if found else asked.partition(":")[::2]
    return name, [part.strip() for part in re.split(r",(?![^\[{(]*[\]})])", wanted) if part.strip()]


def _is(fact: str, value: str) -> bool:
    """Whether a fact has the value that was typed: as recorded, or as a label has it."""
    return value in (fact, labels.short(fact), labels.short(fact).removesuffix("…"))


def choose(
    a: Sequence[Rows], b: Sequence[Rows], all_rows: Sequence[Rows], title: str, names: tuple[str, str], view: View
) -> tuple[Taken, Taken]:
    """One row for each side. ``all_rows`` are those of the protocol, to say which others a name has.

    Raises BadInput with every candidate where it is not clear which two are meant.
    """
    pairs = [(x, y) for x in a for y in b]
    rule = ""
    if len(pairs) > 1 or view.kind in (STEPS, COMPUTE):
        pairs, rule = _sharing_a_budget(pairs, view)
    if len(pairs) != 1:
        raise BadInput(_refusal(a, b, title, names, view, len(pairs)))
    first, second = (
        _taken(asked, chosen, all_rows, rule if len(rows) > 1 else "")
        for asked, chosen, rows in zip(names, pairs[0], (a, b), strict=True)
    )
    return first, second


def _sharing_a_budget(pairs: Sequence[tuple[Rows, Rows]], view: View) -> tuple[list[tuple[Rows, Rows]], str]:
    """The pairs that share the budget of ``view``; without a view, those that share either, so that both must agree."""
    equal = [pair for pair in pairs if _equal_steps(*pair)]
    if view.kind == STEPS:
        return equal, "equal steps"
    costly = [pair for pair in pairs if _equal_compute(*pair, view.cost)]
    if view.kind == COMPUTE:
        return costly, f"equal compute ({view.cost}, {equal_compute.WITHIN})"
    equal = [pair for pair in equal if inference.one_recipe(pair[0][0], pair[1][0])]
    found = equal + [pair for pair in costly if pair not in equal]
    rules = [rule for rule, kept in (("equal recipe", equal), ("equal compute", costly)) if kept]
    return found, " and ".join(rules)


def _equal_steps(a: Rows, b: Rows) -> bool:
    """A reference point took no steps, so it compares with rows of any number of steps."""
    return _any_reference(a, b) or a[0]["cost"]["steps"] == b[0]["cost"]["steps"]


def _equal_compute(a: Rows, b: Rows, unit: str) -> bool:
    return _any_reference(a, b) or equal_compute.measured_alike(Group(a, None), Group(b, None), unit) is None


def _any_reference(a: Rows, b: Rows) -> bool:
    return roles.of(a[0]).reference or roles.of(b[0]).reference


def _taken(asked: str, chosen: Rows, all_rows: Sequence[Rows], rule: str) -> Taken:
    name = labels.name_of(chosen[0]["method"])
    same = [rows for rows in all_rows if labels.name_of(rows[0]["method"]) == name]
    told = selectors(same)
    mine = next(i for i, rows in enumerate(same) if rows[0]["run_id"] == chosen[0]["run_id"])
    return Taken(asked, told[mine], chosen, tuple(one for i, one in enumerate(told) if i != mine), rule)


def selectors(rows: Sequence[Rows]) -> list[str]:
    """For each row of one name the words that name it alone."""
    firsts = [row[0] for row in rows]
    found = []
    for first in firsts:
        name, picked = labels.name_of(first["method"]), []
        rest = [other for other in firsts if other is not first]
        # The fewest facts that leave no other row: each in turn the one that leaves fewest.
        while rest:
            keys = [key for row in (first, *rest) for key in labels.facts_of(row)]
            left = {
                key: [o for o in rest if labels.fact(o, key) == labels.fact(first, key)] for key in dict.fromkeys(keys)
            }
            best = min(left, key=lambda key: len(left[key]))
            if len(left[best]) == len(rest):  # no fact tells them apart
                break
            picked.append(f"{best}={_typed(labels.fact(first, best), [labels.fact(o, best) for o in rest])}")
            rest = left[best]
        found.append(f"{name}:{','.join(picked)}" if picked else name)
    return found


def _typed(fact: str, others: Sequence[str]) -> str:
    """The value as short as it may be typed."""
    short = labels.short(fact)
    return fact if short in map(labels.short, others) else short.removesuffix("…")


def _refusal(a: Sequence[Rows], b: Sequence[Rows], title: str, names: tuple[str, str], view: View, fits: int) -> str:
    """What could have been meant, and how to say it."""
    lists = []
    for name, rows in zip(names, (a, b), strict=True):
        told = [shlex.quote(words) for words in selectors(rows)]
        more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
        lists.append(f"{name} is {' or '.join(told[:SHOWN])}{more}" if len(told) > 1 else "")
    asked = {STEPS: "equal steps", COMPUTE: f"equal compute ({view.cost}, {equal_compute.WITHIN})"}.get(view.kind)
    what = f"{'several pairs' if fits else 'no two rows'} have {asked}" if asked else "several rows have these names"
    ways = "say which as NAME:key=value" + ("" if asked else ", or choose by --view steps or --view compute")
    return f"{' and '.join(names)} on {title}: {what}; {ways}: {'; '.join(filter(None, lists)) or _steps(a, b)}"


def _steps(a: Sequence[Rows], b: Sequence[Rows]) -> str:
    spent: Mapping[str, Any] = {labels.name_of(r[0]["method"]): r[0]["cost"]["steps"] for r in (*a, *b)}
    return ", ".join(f"{name} has {steps:,} steps" for name, steps in spent.items())
