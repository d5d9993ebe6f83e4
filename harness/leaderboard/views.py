"""Chooses which rows stand in one section: all of them, those of equal steps, or those of equal compute.

steps     one section for each number of optimizer steps
compute   the rows at the budget, as :mod:`harness.leaderboard.equal_compute` defines it; a note names the others

References cost nothing and are shown in every section.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.leaderboard import equal_compute, labels
from harness.leaderboard.inference import Group

ALL, STEPS, COMPUTE = VIEWS = ("all", "steps", "compute")


@dataclass(frozen=True)
class View:
    """How rows are chosen. ``anchor`` is the method whose cost is the budget; None selects it by rule."""

    kind: str = ALL
    cost: str = equal_compute.DEFAULT
    anchor: str | None = None


EVERYTHING = View()


def split(groups: Sequence[Group], view: View) -> Iterator[tuple[str, list[Group], list[str]]]:
    """For each section: text for its title, its groups, and notes on groups left out."""
    competitors = [group for group in groups if not group.reference]
    references = [group for group in groups if group.reference]
    if view.kind == ALL or not competitors:
        yield "", list(groups), []
    elif view.kind == STEPS:
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
    budget = equal_compute.anchor(competitors, view.cost, view.anchor)
    names = labels.names([group.first for group in competitors])
    chosen, aside = [], defaultdict(list)
    for group, name in zip(competitors, names, strict=True):
        reason = equal_compute.measured_alike(group, budget, view.cost)
        if reason is None:
            chosen.append(group)
        else:
            aside[reason].append(name)
    costs = "; ".join(f"{', '.join(sorted(rows))}: {reason}" for reason, rows in sorted(aside.items()))
    notes = [f"left out, not {equal_compute.WITHIN} of the budget: {costs}"] if aside else []
    return equal_compute.caption(budget, view.cost), [*chosen, *references], notes
