"""Compares two rows on the tasks that both have, and on all of them together.

Together every problem has equal weight, whatever its task, and one seed is one student that answers all tasks. There is
no such comparison where the tasks' scores mean different things, or where a name stands for other students.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from harness.errors import BadInput
from harness.leaderboard import compare, labels, row_selection
from harness.leaderboard.compare import ComparisonResult, PairedScores
from harness.leaderboard.equal_compute import EVERYTHING, View
from harness.leaderboard.inference import Completions, Group
from harness.leaderboard.rows import selected
from harness.records.record import Record
from harness.stats import intervals
from harness.stats.intervals import SeedVariance


@dataclass(frozen=True)
class Comparisons:
    """B against A on every task, and on all together. ``without`` says which tasks are left out, and why; ``apart`` why
    there is no comparison of all together, where one could be expected."""

    tasks: list[ComparisonResult]
    together: ComparisonResult | None
    without: list[str]
    apart: list[str]

    @property
    def left_out(self) -> list[str]:
        return [*self.without, *self.apart]


def over_tasks(
    records: Iterable[Record],
    a: str,
    b: str,
    tasks: Sequence[str] | None,
    completions: Completions,
    protocol: str | None = None,
    view: View = EVERYTHING,
) -> Comparisons:
    """:func:`compare.compare` on ``tasks``, None for all that both rows have, and on their problems together.

    A task that is asked for by name must be comparable; of all tasks, the others are left out, and ``without`` says so.
    """
    by_task = compare.of_tasks(records)
    titles = _shared(by_task, a, b) if tasks is None else list(dict.fromkeys(selected(by_task, tasks)))
    pairs: list[PairedScores] = []
    faults: list[BadInput] = []
    for title in titles:
        try:
            pairs.append(compare.pair_of(by_task[title], title, a, b, completions, protocol, view))
        except BadInput as error:
            if tasks is not None:
                raise
            faults.append(error)
    if not pairs:
        raise faults[0]
    together, reason = _together(pairs)
    without = [f"left out: {error}" for error in faults]
    return Comparisons(compare.answered(pairs), together, without, [f"not taken together: {reason}"] if reason else [])


def _shared(by_task: Mapping[str, Sequence[Record]], a: str, b: str) -> list[str]:
    """The tasks on which both names have rows. Raises BadInput where there is none."""
    if not by_task:
        raise BadInput("nothing is recorded yet; harness run makes records, --results names another folder")
    has: dict[str, list[str]] = {a: [], b: []}
    for name, titles in has.items():
        for title in sorted(by_task):
            with contextlib.suppress(BadInput):
                titles += [title] if row_selection.of_name(by_task[title], title, name) else []
        if not titles:  # the same question over all records says what is wrong with the name
            row_selection.of_name([r for rows in by_task.values() for r in rows], "all tasks", name)
    shared = [title for title in has[a] if title in has[b]]
    if not shared:
        where = "; ".join(f"{name} is on {', '.join(titles)}" for name, titles in has.items())
        raise BadInput(f"{a} and {b} have no task in common: {where}; run both on one")
    return shared


def _together(pairs: Sequence[PairedScores]) -> tuple[ComparisonResult | None, str]:
    """The comparison over the problems of all tasks; or None, and why there is none where there are several tasks."""
    if len(pairs) < 2:
        return None, ""
    if reason := _apart(pairs):
        return None, reason
    first, second, seeds = scores_of_all(pairs)
    if not seeds:
        return None, "no seed is on all tasks"
    names = [pair.title for pair in pairs]
    title = f"{' and '.join(names) if len(names) == 2 else f'{len(names)} tasks'} together"
    table = ((_student(group.first), pair.title, group) for pair in pairs for group in pair.table)
    pooled = pooled_over_tasks(table, len(pairs)) if len(seeds) > 1 else None
    whole = dataclasses.replace(pairs[0], title=title, seeds=seeds, first=first, second=second, notes=(), pooled=pooled)
    metrics = dict.fromkeys(pair.a.first["metric"] for pair in pairs)
    protocols = dict.fromkeys(pair.a.first["protocol"]["hash"] for pair in pairs)
    (found,) = compare.answered([whole])
    return dataclasses.replace(found, metric=", ".join(metrics), protocol=", ".join(protocols)), ""


def scores_of_all(pairs: Sequence[PairedScores]) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Scores [S, N of all tasks] of both rows, and the S seeds: those of every task, because a seed is one student."""
    seeds = sorted(set.intersection(*(set(pair.seeds) for pair in pairs)))
    rows = [[pair.seeds.index(seed) for seed in seeds] for pair in pairs]
    first, second = (
        np.hstack([getattr(pair, side)[its] for pair, its in zip(pairs, rows, strict=True)])
        for side in ("first", "second")
    )
    return first, second, tuple(seeds)


def _apart(pairs: Sequence[PairedScores]) -> str:
    """Why the problems of these tasks are not to be counted together; "" if they are."""
    firsts = [pair.a.first for pair in pairs]
    metrics = dict.fromkeys(first["metric"] for first in firsts)
    # A right answer is worth a right program, but neither is worth a point of another metric.
    right_or_wrong = all(np.isin(scores, (0, 1)).all() for pair in pairs for scores in (pair.first, pair.second))
    if any(pair.a.scale != pairs[0].a.scale for pair in pairs) or (len(metrics) > 1 and not right_or_wrong):
        return f"{' and '.join(metrics)} are different scores"
    if len({first["world"] for first in firsts}) > 1:
        return "some problems are generated and some are real"
    if len({first["protocol"].get("prompts_sha256", first["task"]) for first in firsts}) < len(firsts):
        return "some tasks have the same problems"
    for side, name in zip(("a", "b"), pairs[0].names, strict=True):
        if len({_student(getattr(pair, side).first) for pair in pairs}) > 1:
            return f"{name} is not the same student on all tasks"
    return ""


def _student(record: Record) -> tuple[Any, ...]:
    """What a row is on every task (:attr:`harness.leaderboard.rows.LeaderboardRow.key`)."""
    return labels.name_of(record["method"]), record["student"], record["teacher"], labels.training(record)


def pooled_over_tasks(groups: Iterable[tuple[Hashable, str, Group]], tasks: int) -> SeedVariance | None:
    """The variance between seeds over the problems of all ``tasks`` together, from (student, task, its records).

    One seed is one student, so a row counts only if it is the same student, with the same seeds, on every task.
    """
    rows: dict[Any, dict[str, np.ndarray]] = defaultdict(dict)
    for student, task, group in groups:
        if group.matrix is not None and not group.reference:
            seeds = tuple(record["seed"] for record in group.records)
            rows[student, seeds][task] = group.matrix.scores
    return intervals.pooled_seed_variance(np.hstack(list(of.values())) for of in rows.values() if len(of) == tasks)
