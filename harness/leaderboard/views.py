"""Which rows may be set side by side: all of them, those of equal steps, or those of about equal cost.

steps     one section for each number of optimizer steps
compute   of every method the row whose training cost is nearest to the budget, if it is within a tenth of it; methods
          without such a row are named. The budget is the cost of the anchor: a method that is named, or the dearest
          of the rows with the commonest number of steps (a second arm gives cheap methods what that one cost).

Cost is ``seconds`` of training (rows of one machine only) or ``tokens``: those that went through the student and the
teacher and those that were sampled, each counting one. References are shown in every section and cost nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from harness.errors import BadInput, unknown
from harness.leaderboard import labels
from harness.leaderboard.inference import Group

VIEWS = ("all", "steps", "compute")
COSTS = ("seconds", "tokens")
ALIKE = 0.1  # relative difference of costs that counts as equal


@dataclass(frozen=True)
class View:
    """How rows are chosen. ``anchor`` is the method whose cost is the budget; None takes the rule's."""

    kind: str = "all"
    cost: str = "seconds"
    anchor: str | None = None


EVERYTHING = View()


def split(groups: Sequence[Group], view: View) -> Iterator[tuple[str, list[Group], list[str]]]:
    """Words for the title, the groups of a section, and notes on those left out."""
    competitors = [group for group in groups if not group.reference]
    references = [group for group in groups if group.reference]
    if view.kind == "all" or not competitors:
        yield "", list(groups), []
    elif view.kind == "steps":
        by_steps: dict[float, list[Group]] = defaultdict(list)
        for group in competitors:
            by_steps[group.first["cost"]["steps"]].append(group)
        for steps in sorted(by_steps):
            yield f"equal steps: {steps:g}", [*by_steps[steps], *references], []
    else:
        yield _equal_compute(competitors, references, view)


def _equal_compute(
    competitors: Sequence[Group], references: Sequence[Group], view: View
) -> tuple[str, list[Group], list[str]]:
    anchor = _anchor(competitors, view)
    budget, notes = cost(anchor, view.cost), []
    if view.cost == "seconds":
        elsewhere = [g for g in competitors if _machine(g) != _machine(anchor)]
        competitors = [g for g in competitors if _machine(g) == _machine(anchor)]
        notes += [f"timed on another machine, left out: {_names(elsewhere)}"] if elsewhere else []
    by_method: dict[str, list[Group]] = defaultdict(list)
    for group in competitors:
        by_method[labels.name_of(group.first["method"])].append(group)
    chosen, far = [], []
    for rows in by_method.values():
        nearest = min(rows, key=lambda group: (abs(cost(group, view.cost) - budget), group is not anchor))
        near = abs(cost(nearest, view.cost) - budget) <= ALIKE * budget
        (chosen if near else far).append(nearest)
    if far:
        spent = ", ".join(f"{labels.name_of(g.first['method'])} ({_amount(g, view.cost)})" for g in far)
        notes.append(f"no run within {ALIKE:.0%} of the budget, nearest: {spent}")
    name = labels.name_of(anchor.first["method"])
    return f"equal compute: {_amount(anchor, view.cost)}, as {name}", [*chosen, *references], notes


def _anchor(competitors: Sequence[Group], view: View) -> Group:
    named = [g for g in competitors if view.anchor in (None, labels.name_of(g.first["method"]))]
    if not named:
        raise unknown(
            "anchor among the rows", str(view.anchor), {labels.name_of(g.first["method"]) for g in competitors}
        )
    counts = Counter(group.first["cost"]["steps"] for group in competitors)
    commonest = max(counts, key=lambda steps: (counts[steps], -steps))
    base = [group for group in named if group.first["cost"]["steps"] == commonest] or named
    return max(base, key=lambda group: cost(group, view.cost))


def cost(group: Group, unit: str) -> float:
    """The median training cost over the seeds of a row: the wait for texts that all share falls to one of them."""
    if unit not in COSTS:
        raise BadInput(f"cost {unit!r} is not {' or '.join(COSTS)}")
    keys = ("seconds",) if unit == "seconds" else ("student_tokens", "teacher_forward_tokens", "generated_tokens")
    return float(np.median([sum(record["cost"][key] for key in keys) for record in group.records]))


def _machine(group: Group) -> tuple:
    where = group.first["provenance"]
    return where.get("cpu"), where.get("cores"), where.get("device")


def _amount(group: Group, unit: str) -> str:
    return f"{cost(group, unit):.3g} s" if unit == "seconds" else f"{cost(group, unit):.3g} tokens"


def _names(groups: Sequence[Group]) -> str:
    return ", ".join(sorted({labels.name_of(group.first["method"]) for group in groups}))
