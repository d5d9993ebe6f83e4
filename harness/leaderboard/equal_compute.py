"""Which rows form a section: all of them, those of equal steps, or those of equal compute. Defined only here.

unit        counts the cost of training, median over the seeds of a row: floating-point operations by default
anchor      the row whose cost is the budget. By default, among the rows with the most common number of steps, the one
            at whose cost most methods have a run; ties go to a method that is not a control, then to the highest cost
tolerance   two costs are equal when the higher is at most 1.15 times the lower: step counts for a budget are rounded
            to two digits, and a method that samples its own texts does not cost the same at every step

``flops`` are 6 per parameter and token of the student's training, and 2 per parameter and token of the teacher's
forward passes, of those of the frozen student before training and of sampling
(:func:`harness.estimate.shapes.token_flops`); they do not depend on the machine. A student that is its own teacher is
counted at its own size. ``seconds`` depend on the machine, so they compare only rows of one. ``tokens`` are those
through the student, through the teacher, through the frozen student, and sampled. References cost nothing and are
shown in every section.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from statistics import median
from typing import Any

from harness.errors import BadInput, unknown
from harness.estimate import shapes
from harness.estimate.shapes import published, token_flops
from harness.leaderboard import ALL, DEFAULT_UNIT, STEPS, UNITS, labels
from harness.leaderboard.inference import Group
from harness.leaderboard.text_tables import amount
from harness.models.files import MICRO, locate
from harness.records.record import CONTROL, Record, roles_of

TOLERANCE = 1.15
TOKENS = ("student_tokens", "teacher_forward_tokens", "generated_tokens", "reference_forward_tokens")
WITHIN = f"within a factor of {TOLERANCE:g}"


def cost(record: Record, unit: str = DEFAULT_UNIT) -> float:
    """What the training of ``record`` cost. Raises BadInput for FLOPs where a model's parameters are not known."""
    if unit not in UNITS:
        raise unknown("unit of cost", unit, UNITS)
    spent = record["cost"]
    if unit == "seconds":
        return float(spent["seconds"])
    if unit == "tokens":
        return float(sum(spent.get(key, 0) for key in TOKENS))
    return flops(record)


def flops(record: Record) -> float:
    """Floating-point operations of the training of ``record``; every command counts them here."""
    spent = record["cost"]
    if not any(spent.get(key) for key in TOKENS):
        return 0.0
    student = _parameters(record, "student")
    # A method without a teacher model that charges teacher passes has a student that teaches itself.
    side = "teacher" if record["teacher"] else "student"
    teacher = _parameters(record, side) if spent["teacher_forward_tokens"] else 0
    return token_flops(student, teacher, *(spent.get(key, 0) for key in TOKENS))


def median_cost(records: Sequence[Record], unit: str = DEFAULT_UNIT) -> float:
    """The cost of a row. A median, because one seed may have computed what the others reuse (teacher texts, caches)."""
    return median(cost(record, unit) for record in records)


def alike(a: float, b: float) -> bool:
    """Whether two costs are equal compute."""
    low, high = sorted((a, b))
    return high <= TOLERANCE * low


def measured_alike(group: Group, budget: Group, unit: str) -> str | None:
    """None if ``group`` has the cost of ``budget``, else the reason to leave it out."""
    if unit == "seconds" and _machine(group) != _machine(budget):
        return "timed on another machine"
    try:
        spent, allowed = median_cost(group.records, unit), median_cost(budget.records, unit)
    except BadInput as error:
        return str(error)
    return None if alike(spent, allowed) else cost_in_words(spent, unit)


def anchor(competitors: Sequence[Group], unit: str, name: str | None = None) -> Group:
    """The row whose cost is the budget. Raises BadInput where ``name`` has no row, or no row's cost is known."""
    names = {labels.name_of(group.first["method"]) for group in competitors}
    if name is not None and name not in names:
        raise unknown("anchor among the rows", name, names)
    costs, faults = {}, []
    for i, group in enumerate(competitors):
        try:
            costs[i] = median_cost(group.records, unit)
        except BadInput as error:
            faults.append(str(error))
    named = [i for i in costs if name in (None, labels.name_of(competitors[i].first["method"]))]
    if not named:
        raise BadInput(f"equal compute: no cost in {unit} is known for {name or 'any row'}: {faults[0]}")
    counts = Counter(competitors[i].first["cost"]["steps"] for i in costs)
    commonest = max(counts, key=lambda steps: (counts[steps], -steps))
    base = [i for i in named if competitors[i].first["cost"]["steps"] == commonest] or named

    def standing(i: int) -> tuple[int, bool, float]:
        near = [j for j in costs if measured_alike(competitors[j], competitors[i], unit) is None]
        served = {labels.name_of(competitors[j].first["method"]) for j in near}
        return len(served), roles_of(competitors[i].first).role != CONTROL, costs[i]

    return competitors[max(base, key=standing)]


def caption(budget: Group, unit: str) -> str:
    """Unit, anchor and tolerance in words: ``equal compute: 720 GFLOPs, as vcrd at 200 steps, within …``."""
    first = budget.first
    name = f"{labels.name_of(first['method'])} at {first['cost']['steps']:,} steps"
    return f"equal compute: {cost_in_words(median_cost(budget.records, unit), unit)} of training, as {name}, {WITHIN}"


def cost_in_words(value: float, unit: str) -> str:
    """A cost in words: ``720 GFLOPs``, ``634 k tokens``, ``30 s``."""
    if unit == "flops":
        return amount(value, UNITS[unit])
    return f"{amount(value) if unit == 'tokens' else f'{value:.3g}'} {UNITS[unit]}"


def _machine(group: Group) -> tuple[Any, ...]:
    where = group.first["provenance"]
    return where.get("cpu"), where.get("cores"), where.get("device")


def _parameters(record: Record, side: str) -> int:
    """The parameters of a model from its record, else from its shipped files or published shape."""
    known: Mapping[str, Any] = record.get("parameters") or {}
    name = record[side]
    count = known.get(side) or (name and _of_model(name))
    if not count:
        raise BadInput(
            f"FLOPs of {record['run_id']}: the parameters of {name or 'its teacher'} are not known; run it again "
            "(--again) where the model is, or count another unit (--cost tokens)"
        )
    return count


@cache
def _of_model(name: str) -> int | None:
    """The parameters of a model whose record does not count them. Fetches nothing: a table needs no model files."""
    if name.startswith(MICRO):
        return shapes.parameters(locate(name))
    shape = published(name)
    return None if shape is None else shape.parameters


@dataclass(frozen=True)
class View:
    """How rows are chosen. ``anchor`` is the method whose cost is the budget; None selects it by rule."""

    kind: str = ALL
    cost: str = DEFAULT_UNIT
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
    budget = anchor(competitors, view.cost, view.anchor)
    names = labels.names([group.first for group in competitors])
    chosen, aside = [], defaultdict(list)
    for group, name in zip(competitors, names, strict=True):
        reason = measured_alike(group, budget, view.cost)
        if reason is None:
            chosen.append(group)
        else:
            aside[reason].append(name)
    costs = "; ".join(f"{', '.join(sorted(rows))}: {reason}" for reason, rows in sorted(aside.items()))
    notes = [f"left out, not {WITHIN} of the budget: {costs}"] if aside else []
    return caption(budget, view.cost), [*chosen, *references], notes
