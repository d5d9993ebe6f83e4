"""Compares two methods on one task: whether B differs from A, by how much, with what p, and what would settle it.

    results = compare(records, "vcrd", "gkd@trl", "humaneval", store.completions)
    print(comparison_in_words(results[0]))

Compares only scores under one protocol, problem by problem, of students with the same training seed. The result names
the rows compared and the other rows of the same name: :mod:`harness.leaderboard.row_selection`.
"""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np

from harness.errors import BadInput
from harness.leaderboard import footnotes, inference, labels, row_selection
from harness.leaderboard.equal_compute import EVERYTHING, View
from harness.leaderboard.footnotes import MICRO
from harness.leaderboard.inference import LEVEL, Completions, Group
from harness.leaderboard.row_selection import SelectedRow
from harness.leaderboard.rows import alike, latest, selected
from harness.metrics import PERCENT, Scale
from harness.records.record import Record, measured_under, note_of
from harness.stats import intervals
from harness.stats.intervals import Comparison, SeedVariance


@dataclass(frozen=True)
class ComparisonResult:
    """B against A on one task under one protocol. ``p_holm`` is adjusted over the tasks compared together."""

    task: str
    protocol: str
    metric: str
    scale: Scale  # of the metric: a positive difference is worse where lower is better
    a: str
    b: str
    reconstructions: tuple[str, ...]  # those of a and b whose published formula was not available to us
    score_a: float
    score_b: float
    problems: int
    seeds: tuple[int, ...]
    comparison: Comparison
    p_holm: float
    more_problems: float  # problems that would settle it with the same seeds; inf: no number would
    more_seeds: float  # seeds that would settle it on the same problems
    times_both: float  # factor by which both would have to grow; 1 or less: no growth is needed
    minimum_detectable: float  # the smallest difference that these problems and seeds detect with 80 % power
    taken: tuple[SelectedRow, SelectedRow]  # the rows of a and b, and the rule that chose them
    notes: tuple[str, ...]

    @property
    def differs(self) -> bool:
        return self.p_holm < LEVEL


def compare(
    records: Iterable[Record],
    a: str,
    b: str,
    tasks: Sequence[str],
    completions: Completions,
    protocol: str | None = None,
    view: View = EVERYTHING,
) -> list[ComparisonResult]:
    """Compares two rows on every task; p-values are Holm-adjusted over the tasks.

    ``a`` and ``b`` are names as in a table, with settings where several rows have one name:
    ``gkd``, ``gkd@trl``, ``vcrd@shuffled``, ``sft:training.steps=900``. ``view`` is the budget that two rows of
    several must share. ``protocol`` is a name or the beginning of a hash, for rows measured under several.
    Raises BadInput when there is nothing to compare, or when it is not clear which rows are meant.
    """
    by_task = of_tasks(records)
    titles = dict.fromkeys(selected(by_task, tasks))
    return answered([pair_of(by_task[title], title, a, b, completions, protocol, view) for title in titles])


def of_tasks(records: Iterable[Record]) -> dict[str, list[Record]]:
    """The newest records of each task."""
    by_task: dict[str, list[Record]] = defaultdict(list)
    for record in latest(records):
        by_task[record["task"]].append(record)
    return by_task


def answered(pairs: Sequence[PairedScores]) -> list[ComparisonResult]:
    """The comparison of every pair, adjusted over all of them."""
    compared = [(_compared(pair), pair) for pair in pairs]
    adjusted = intervals.holm([comparison.p for comparison, _ in compared])
    return [_result(c, pair, p, len(compared)) for (c, pair), p in zip(compared, adjusted, strict=True)]


def of_groups(a: Group, b: Group, names: tuple[str, str], seeds: SeedVariance | None) -> ComparisonResult:
    """Compares two rows of one protocol; ``seeds`` is the variance between seeds pooled over their table.

    Raises BadInput where seeds or problems cannot be paired.
    """
    pair = pair_up(a, b, names)
    pair = dataclasses.replace(pair, pooled=seeds if len(pair.seeds) > 1 else None)
    comparison = _compared(pair)
    return _result(comparison, pair, comparison.p, 1)


def _compared(pair: PairedScores) -> Comparison:
    return intervals.compare(pair.first, pair.second, seeds=pair.pooled, width=pair.a.scale.width)


@dataclass(frozen=True)
class PairedScores:
    """Scores [S, N] of two rows, seed by seed and problem by problem."""

    title: str
    a: Group
    b: Group
    names: tuple[str, str]
    seeds: tuple[int, ...]
    first: np.ndarray
    second: np.ndarray
    notes: tuple[str, ...]
    pooled: SeedVariance | None = None  # pooled over all rows of the table
    taken: tuple[SelectedRow, ...] = ()
    table: tuple[Group, ...] = ()  # all rows of the table, where several seeds need their variance


def pair_up(a: Group, b: Group, names: tuple[str, str]) -> PairedScores:
    """Pairs two rows of one protocol. Raises BadInput where seeds or problems cannot be paired.

    A model that was not trained has no seeds to pair: its mean is compared with every student of the other row.
    """
    title = a.first["task"]
    if {r["run_id"] for r in a.records} == {r["run_id"] for r in b.records}:
        raise BadInput(f"{names[0]} and {names[1]} are the same records of {title}; name two different rows")
    for group, name in ((a, names[0]), (b, names[1])):
        if not group.is_mean:
            raise BadInput(
                f"{title}: {group.first['metric']} is no mean over problems, and only means are compared; see the "
                "scores and their intervals with harness table"
            )
        if group.matrix is None:
            raise BadInput(
                f"{name} on {title}: the completions of {group.first['run_id']} are missing, damaged or of other "
                "problems, so nothing can be paired; restore them, or run again with --again"
            )
    if a.matrix.ids != b.matrix.ids:
        raise BadInput(f"{names[0]} and {names[1]} answered different problems of {title}; nothing can be paired")
    seeds_a, seeds_b = ([r["seed"] for r in group.records] for group in (a, b))
    first, second, notes = a.matrix.scores, b.matrix.scores, []
    if a.reference or b.reference:
        first = first.mean(axis=0, keepdims=True) if a.reference else first
        second = second.mean(axis=0, keepdims=True) if b.reference else second
        first, second = np.broadcast_arrays(first, second)
        shared = sorted(seeds_b if a.reference else seeds_a)[: len(first)]
    else:
        shared = sorted(set(seeds_a) & set(seeds_b))
        if not shared:
            raise BadInput(
                f"{names[0]} has the seeds {_listed(seeds_a)} on {title} and {names[1]} has {_listed(seeds_b)}: no "
                f"seed is shared, so nothing can be paired; run {names[1]} with --seed {' '.join(map(str, seeds_a))}"
            )
        first = first[[seeds_a.index(seed) for seed in shared]]
        second = second[[seeds_b.index(seed) for seed in shared]]
        for name, seeds in zip(names, (seeds_a, seeds_b), strict=True):
            if left := sorted(set(seeds) - set(shared)):
                notes.append(f"seed {_listed(left)} of {name} left out: the other row lacks it")
        if len(shared) == 1:
            notes.append("one training seed each: the result does not cover other seeds")
    if a.first["world"] == "micro":
        notes.append(MICRO)
    for group, name in ((a, names[0]), (b, names[1])):
        if group.roles.reconstruction:
            notes.append(f"{name}: {note_of(group.first['method'])}")
    notes += footnotes.differences([a, b])
    return PairedScores(title, a, b, names, tuple(shared), first, second, tuple(notes))


def pair_of(
    members: Sequence[Record],
    title: str,
    a: str,
    b: str,
    completions: Completions,
    protocol: str | None,
    view: View,
) -> PairedScores:
    """The two rows of one task, paired. Raises BadInput as :func:`compare` does."""
    first, second = (row_selection.of_name(members, title, name) for name in (a, b))
    protocols_a, protocols_b = ({r["protocol"]["hash"] for r in side} for side in (first, second))
    shared = protocols_a & protocols_b
    if not shared:
        raise BadInput(
            f"{a} and {b} share no protocol on {title}: {a} was measured under {_listed(protocols_a)}, {b} under "
            f"{_listed(protocols_b)}; measure both under one (harness run --protocol)"
        )
    chosen = sorted({r["protocol"]["hash"] for r in (*first, *second) if measured_under(r, protocol)} & shared)
    if len(chosen) != 1:
        differs = labels.of_protocols({h: [r for r in members if r["protocol"]["hash"] == h] for h in sorted(shared)})
        choices = "; ".join(f"{h[:12]} ({words})" if words else h[:12] for h, words in differs.items())
        what = f"no shared protocol is called {protocol!r}" if protocol and not chosen else "several protocols fit"
        raise BadInput(f"{title}: {what}; choose one with --protocol: {choices}")
    rows_a, rows_b = ([r for r in side if r["protocol"]["hash"] == chosen[0]] for side in (first, second))
    under = [r for r in members if r["protocol"]["hash"] == chosen[0]]
    all_rows = alike(under)
    taken = row_selection.choose(alike(rows_a), alike(rows_b), all_rows, title, (a, b), view)
    groups = [Group(one.records, inference.read_matrix(one.records, completions)) for one in taken]
    pair = dataclasses.replace(pair_up(*groups, (a, b)), taken=taken)
    if len(pair.seeds) == 1 or not inference.affordable(under):
        return pair
    rows = [Group(g, inference.read_matrix(g, completions)) for g in all_rows]
    telling = sum(not row.reference and row.matrix is not None and len(row.records) > 1 for row in rows)
    words = (
        (f"the variance between training seeds is pooled over all {telling} rows of the table",) if telling > 2 else ()
    )
    pooled = inference.seed_variance(rows)
    return dataclasses.replace(pair, pooled=pooled, notes=pair.notes + words, table=tuple(rows))


def _called(pair: PairedScores, side: int) -> str:
    """The name of a side, with the settings that distinguish it where several rows have that name."""
    if not pair.taken:
        return pair.names[side]
    taken = pair.taken[side]
    return taken.selector if taken.others else pair.names[side]


def _result(comparison: Comparison, pair: PairedScores, p: float, tests: int) -> ComparisonResult:
    seeds, problems = pair.first.shape
    return ComparisonResult(
        task=pair.title,
        protocol=pair.a.first["protocol"]["hash"],
        metric=pair.a.first["metric"],
        scale=pair.a.scale,
        a=_called(pair, 0),
        b=_called(pair, 1),
        reconstructions=tuple(
            _called(pair, side) for side, group in enumerate((pair.a, pair.b)) if group.roles.reconstruction
        ),
        score_a=float(pair.first.mean()),
        score_b=float(pair.second.mean()),
        problems=problems,
        seeds=pair.seeds,
        comparison=comparison,
        p_holm=p,
        more_problems=max(intervals.problems_needed(comparison, seeds) - problems, 0),
        more_seeds=max(intervals.seeds_needed(comparison, problems) - seeds, 0) if seeds > 1 else math.inf,
        times_both=intervals.scale_needed(comparison, seeds, problems),
        minimum_detectable=smallest_seen(comparison, pair.first, pair.second, pair.a.scale),
        taken=pair.taken,
        notes=pair.notes + ((f"p Holm-adjusted over {tests} tasks",) if tests > 1 else ()),
    )


def smallest_seen(comparison: Comparison, first: np.ndarray, second: np.ndarray, scale: Scale = PERCENT) -> float:
    """The smallest difference detected with 80 % power by as many problems and seeds; inf if unknown."""
    if comparison.spread.value > 0:
        return intervals.reach(0.8, 1 - LEVEL) * math.sqrt(comparison.spread.value)
    if not scale.finite:
        return math.inf
    # Equal differences do not reveal their spread, so use that of unpaired right and wrong answers.
    least = scale.share(float(min(first.mean(), second.mean())))
    return scale.width * intervals.minimum_detectable_effect(first.shape[1], least)


def _listed(values: Iterable[Any] | Mapping[Any, Any]) -> str:
    return ", ".join(str(value)[:12] for value in sorted(values))


# Prints a comparison of two methods as a sentence and as JSON.


def comparison_as_json(result: ComparisonResult) -> dict[str, Any]:
    """The comparison for programs; an infinite number is null."""
    facts = {field.name: getattr(result, field.name) for field in fields(result)}
    facts |= {
        "scale": result.scale.card(),
        "comparison": asdict(result.comparison),
        "taken": [side.as_json() for side in result.taken],
    }
    facts |= {"differs": result.differs, "sentence": comparison_in_words(result)}
    return {key: None if value == math.inf else value for key, value in facts.items()}


def comparison_in_words(result: ComparisonResult) -> str:
    """One sentence: whether B differs from A, by how much, with what p, and what would settle it."""
    comparison, (a, b) = result.comparison, (_row_name(result, result.a), _row_name(result, result.b))
    scale = result.scale
    low, high = (scale.signed(bound) for bound in comparison.interval)
    where = f"{result.metric}, {result.problems} problems × {_many(len(result.seeds), 'seed')}"
    interval = f"{scale.points} [95 % {low} to {high}]"
    scores = f"{scale.text(result.score_b)} against {scale.text(result.score_a)}"
    scores += f", {scale.direction}" if scale.direction else ""
    sure = f"p {_p_value(result.p_holm)}, {comparison.test}" + (f"; {odd}" if (odd := at_odds(result)) else "")
    if result.differs:
        verdict = f"{b} is {'better' if scale.gain(comparison.difference, 0) > 0 else 'worse'} than {a} by "
        verdict += f"{scale.text(abs(comparison.difference))} {interval}"
        return f"On {result.task} ({where}) {verdict} ({scores}; {sure}), and no more problems or seeds are needed."
    verdict = f"{b} is not distinguishable from {a}: {scale.signed(comparison.difference)} {interval}"
    return f"On {result.task} ({where}) {verdict} ({scores}; {sure}); {_settle(result)}."


def at_odds(result: ComparisonResult) -> str:
    """Why only one of interval and test tells the difference from 0; "" if they agree. The test decides."""
    comparison = result.comparison
    apart = not comparison.interval.low <= 0 <= comparison.interval.high
    if apart == result.differs:
        return ""
    if apart == (comparison.p < LEVEL):
        return f"the interval is for this task alone, where p {_p_value(comparison.p)}"
    return "the interval is a bootstrap over problems, and the test decides"


def settled(result: ComparisonResult) -> str:
    """What would settle a difference that is not distinguishable from zero; "" if it is settled."""
    return "" if result.differs else _settle(result)


def _settle(result: ComparisonResult) -> str:
    ways = []
    if result.more_problems < math.inf:
        ways.append(f"about {_many(int(result.more_problems), 'more problem')}")
    if result.more_seeds < math.inf:
        ways.append(f"about {_many(int(result.more_seeds), 'more seed')}")
    if ways:
        return f"{' or '.join(ways)} would settle a difference of this size (80 % power)"
    if 1 < result.times_both < math.inf:
        times = result.times_both
        problems, seeds = math.ceil(result.problems * times), math.ceil(len(result.seeds) * times)
        together = f"{_many(problems, 'problem')} with {_many(seeds, 'seed')}"
        return f"more problems or seeds alone would not settle it, about {together} would (80 % power)"
    if result.minimum_detectable == math.inf:
        return "these differences do not reveal how large a difference would be detected"
    smallest = f"{result.scale.text(result.minimum_detectable)} {result.scale.points}"
    return f"only a difference of {smallest} or more would be detected (80 % power)"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _p_value(value: float) -> str:
    if value < 0.0001:
        return "< 0.0001"
    # A third digit shows on which side of 0.05 it is.
    return f"= {value:.3g}" if f"{value:.2g}" == "0.05" else f"= {value:.2g}"


def _row_name(result: ComparisonResult, name: str) -> str:
    return f"{name} (reconstruction)" if name in result.reconstructions else name
