"""Inference on the rows of a section: intervals over seeds, ties with the best, differences from reference points.

Where the scores of single problems are available, seeds and problems are both random effects and tests are paired.
Elsewhere counts replace them, conservatively: problems shared by seeds count once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import metrics
from harness.errors import BadInput
from harness.records.record import STUDENT, TEACHER, Record, Roles, roles_of
from harness.stats import intervals
from harness.stats.intervals import Interval, SeedVariance

LEVEL = 0.05  # significance level of every test
READ_AT_MOST = 200_000  # completions read for one leaderboard, in a few seconds; larger ones use counts
FILE_WEIGHT = 100  # opening a file takes as long as reading this many completions

Completions = Callable[[Record], Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Matrix:
    """Scores [S, N] of the seeds of one row on the problems ``ids``."""

    ids: tuple[str, ...]
    scores: NDArray[np.float64]


@dataclass(frozen=True)
class Group:
    """The records of one row, which differ only in the training seed, and the scores of their problems if known."""

    records: list[Record]
    matrix: Matrix | None

    @property
    def first(self) -> Record:
        return self.records[0]

    @cached_property
    def score(self) -> float:
        return fmean(record["score"] for record in self.records)

    @cached_property
    def scale(self) -> metrics.Scale:
        """The scale of the scores."""
        return metrics.scale_of(self.first)

    @property
    def problems(self) -> int:
        """The number of problems behind each score."""
        dataset = self.first["protocol"].get("dataset")
        return dataset["n"] if isinstance(dataset, Mapping) and "n" in dataset else self.first["counts"]["total"]

    @property
    def is_mean(self) -> bool:
        """Whether the scores are means over problems."""
        return all(map(metrics.is_mean, self.records))

    @property
    def reference(self) -> bool:
        """Whether this is a reference point, not a competitor."""
        return self.roles.reference

    @cached_property
    def roles(self) -> Roles:
        return roles_of(self.first)


def affordable(records: Iterable[Record]) -> bool:
    """Whether the completions of ``records`` are few enough to read for a table."""
    return sum(record["completions"]["n"] + FILE_WEIGHT for record in records) <= READ_AT_MOST


def read_matrix(records: Sequence[Record], completions: Completions) -> Matrix | None:
    """The score of every problem; None if completions are damaged or the seeds answered different problems.

    None as well where the score is no mean over problems, since intervals and tests here are those of means.
    """
    if not all(map(metrics.is_mean, records)):
        return None
    try:
        by_seed = [problem_scores(completions(record), record) for record in records]
    except BadInput:
        return None
    # Paired tests need the same problems under every seed.
    ids = tuple(sorted(by_seed[0]))
    if not ids or any(scores.keys() != by_seed[0].keys() for scores in by_seed):
        return None
    return Matrix(ids, np.array([[scores[i] for i in ids] for scores in by_seed]))


def problem_scores(rows: Iterable[Mapping[str, Any]], record: Mapping[str, Any]) -> dict[str, float]:
    """The value of each problem by the record's metric, from the graded completions of the record."""
    return metrics.of_record(record).by_problem(rows)


def seed_variance(groups: Iterable[Group]) -> SeedVariance | None:
    """The variance between training seeds, pooled over the trained rows of a section."""
    trained = [group.matrix.scores for group in groups if group.matrix is not None and not group.reference]
    return intervals.pooled_seed_variance(trained)


def interval(group: Group, seeds: SeedVariance | None) -> tuple[Interval, str]:
    """The 95 % interval of the mean over the seeds of ``group``, and how it was computed."""
    # One record: the interval that it was written with, so that a table never differs from the record's own page.
    if len(group.records) == 1:
        return Interval(*group.first["interval"]), group.first["interval_method"]
    scale = group.scale
    limits = scale.low, scale.high
    if group.matrix is not None and group.reference:  # never trained: its seeds are only more samples
        return intervals.mean_interval(group.matrix.scores.mean(axis=0), limits=limits), "over problems"
    if group.matrix is not None:
        return intervals.mean_interval(group.matrix.scores, seeds=seeds, limits=limits), "over seeds and problems"
    # Without completions: an unbounded scale, or a score that is not a mean, has no counts to compute from.
    if not (scale.finite and group.is_mean):
        return _from_seeds(group), "from the records' intervals"
    # A score in [0, 1] varies at most as much over problems as right and wrong answers with the same mean.
    shares = [scale.share(record["score"]) for record in group.records]
    mean, n = fmean(shares), group.problems
    variance = mean * (1 - mean) / n + np.var(shares, ddof=1) / len(shares)
    effective = mean * (1 - mean) / variance if variance > 0 else n
    low, high = intervals.wilson(mean * effective, effective)
    return Interval(scale.low + scale.width * low, scale.low + scale.width * high), "from counts"


def _from_seeds(group: Group) -> Interval:
    """Student's t around the mean of the seeds, from the variance in the records' intervals and the variance between
    the seeds. The problems are shared, so averaging over seeds does not reduce the first.
    """
    # Back from an interval to a variance: half of a 95 % interval is 1.96 standard deviations.
    halves = [(high - low) / 2 for low, high in (record["interval"] for record in group.records)]
    over_problems = fmean(half**2 for half in halves) / intervals.normal_quantile(0.95) ** 2
    between = float(np.var([record["score"] for record in group.records], ddof=1))
    low, high = intervals.around(group.score, over_problems + between / len(halves), len(halves) - 1)
    return Interval(max(low, group.scale.low), min(high, group.scale.high))


def p_value(best: Group, other: Group, pooled: SeedVariance | None = None) -> float:
    """Two-sided p of a row against the best row: paired if both have scores of the same problems, else by counts."""
    a, b = best.matrix, other.matrix
    if a is None or b is None or a.ids != b.ids:
        n, m, scale = best.problems, other.problems, best.scale
        if not (scale.finite and best.is_mean and other.is_mean):
            return 1.0  # scores without their problems reveal no variance, so no difference is claimed
        return intervals.difference_of_counts(scale.share(best.score) * n, n, scale.share(other.score) * m, m)
    # Equal seed numbers of two methods are independent, so the seeds may be paired in any order.
    seeds = min(len(a.scores), len(b.scores))
    return intervals.paired_test(a.scores[:seeds], b.scores[:seeds], seeds=pooled)[0]


@dataclass(frozen=True)
class Distance:
    """The difference of a row from a reference point, and its p, Holm-adjusted over the rows of a section."""

    value: float
    p: float
    mark: str = ""  # the name of the reference point's method


def over_baseline(section: Sequence[Group], *, any_steps: bool, seeds: SeedVariance | None) -> list[Distance | None]:
    """The score of each row minus that of the baseline under the same recipe; None unless exactly one row is such.

    At equal compute recipes may differ in their steps (``any_steps``) and in nothing else.
    """
    # With several baselines, or none, a difference is ambiguous, so no row shows one.
    baselines = [group for group in section if group.roles.baseline]
    gaps: list[tuple[Group, float] | None] = []
    for group in section:
        own = group.reference or group.roles.baseline
        alike = [g for g in baselines if not own and one_recipe(group.first, g.first, any_steps=any_steps)]
        gaps.append((alike[0], group.score - alike[0].score) if len(alike) == 1 else None)
    return _tested(section, gaps, seeds)


def recovery(section: Sequence[Group], seeds: SeedVariance | None) -> list[Distance | None]:
    """For each row its share of the gap from untrained student to teacher, with the p of differing from the student.

    None if either was not measured, or if the two are not distinguishable.
    """
    floors = [g for g in section if g.roles.evaluates == STUDENT]
    ceilings = [g for g in section if g.roles.evaluates == TEACHER]
    shares: list[tuple[Group, float] | None] = []
    for group in section:
        # Use the gap of the models that this row was trained from, not of others in the same table.
        teacher = group.first["spec"].get("teacher")
        low = [g for g in floors if _model(g) == _model(group)]
        high = [g for g in ceilings if teacher in (None, _model(g))]
        if (
            group.reference
            or not _one_score(low)
            or not _one_score(high)
            or group.scale.gain(high[0].score, low[0].score) <= 0
            or p_value(low[0], high[0], seeds) >= LEVEL
        ):
            shares.append(None)
        else:
            shares.append((low[0], (group.score - low[0].score) / (high[0].score - low[0].score)))
    return _tested(section, shares, seeds)


def _one_score(groups: Sequence[Group]) -> bool:
    """Whether the groups are one reference point: a model under two names counts once if its scores are equal."""
    return len({group.score for group in groups}) == 1


def _tested(
    section: Sequence[Group], values: Sequence[tuple[Group, float] | None], seeds: SeedVariance | None
) -> list[Distance | None]:
    # Holm over the rows that have a difference: a row without one is not tested and costs the others no power.
    pairs = [(group, *it) for group, it in zip(section, values, strict=True) if it is not None]
    adjusted = iter(intervals.holm([p_value(mark, group, seeds) for group, mark, _ in pairs]))
    return [it and Distance(it[1], next(adjusted), it[0].first["method"]["name"]) for it in values]


def _model(group: Group) -> Any:
    """The identity of the model that was trained, or evaluated as it came."""
    return group.first["spec"].get("student", group.first["student"])


def one_recipe(a: Record, b: Record, *, any_steps: bool = False) -> bool:
    """Whether two training runs agree on everything that both use, except method, seed and teacher."""
    # Only keys of both: a specification leaves out what its method does not use, such as rollouts of fixed text.
    keys = a["spec"].keys() & b["spec"].keys() - {"method", "seed", "teacher"}
    pairs = [(a["spec"][key], b["spec"][key]) for key in keys]
    return a["student"] == b["student"] and all(_agree(x, y, {"steps"} if any_steps else set()) for x, y in pairs)


def _agree(a: Any, b: Any, aside: set[str]) -> bool:
    """Whether two parts of a recipe agree where both have a value: None and a missing key mean "not used"."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return all(_agree(a[key], b[key], aside) for key in a.keys() & b.keys() - aside)
    return a is None or b is None or a == b
