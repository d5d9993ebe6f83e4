"""Confidence intervals of scores and tests of their differences. Pure functions; every random draw has a seed.

Scores are arrays of shape [N] (problems), [S, N] (training seeds, problems) or [S, N, K] (and K samples of
each problem). Problems and seeds are both samples of a larger population, so both count as uncertainty; the K
samples are averaged within a problem first, which leaves their noise in the cell means (arXiv 2411.00640).

Rounding on another CPU is not a third source: across kernels one seed's score varies no more than seeds do, and no
kernel scores consistently higher (results/rounding), so the variance between seeds includes it. With a single seed no
interval includes it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr, ndtr, ndtri, stdtr, stdtrit

from harness.stats.seed_variance import (
    DRAWS,
    Interval,
    SeedVariance,
    Spread,
    cell_means,
    hierarchical_bootstrap,
    of_difference,
    pooled_seed_variance,
    variance_of_mean,
    widened_tail,
)

__all__ = [
    "Comparison",
    "Interval",
    "SeedVariance",
    "Spread",
    "around",
    "avg_at_k",
    "bootstrap_of",
    "compare",
    "difference_of_counts",
    "hierarchical_bootstrap",
    "holm",
    "mcnemar",
    "mean_interval",
    "minimum_detectable_effect",
    "normal_quantile",
    "paired_bootstrap",
    "paired_test",
    "pass_at_k",
    "pooled_seed_variance",
    "problems_needed",
    "reach",
    "scale_needed",
    "seeds_needed",
    "sign_flip",
    "unbounded_interval",
    "variance_of_mean",
    "wilson",
]

PAIRED_T = "paired t over seeds and problems"
REALS = (-math.inf, math.inf)
STATISTIC_DRAWS = 2000  # of a statistic that is called once a draw
_EXACT_PROBLEMS = 12  # 2**12 sign patterns are about as many: enumerate them


# -- one score -----------------------------------------------------------------------------------------------


def wilson(correct: float, total: float, level: float = 0.95) -> Interval:
    """The score interval of a proportion (Wilson 1927, JASA 22:209); [0, 1] for a total of 0.

    Unlike p ± 1.96 SE it stays in [0, 1] and is not empty at 0 or all correct.
    """
    if not 0 <= correct <= total:
        raise ValueError(f"{correct} correct of {total} is not a proportion")
    return _score_interval(correct / total, total, normal_quantile(level)) if total else Interval(0.0, 1.0)


def mean_interval(
    scores: ArrayLike,
    level: float = 0.95,
    seeds: SeedVariance | None = None,
    limits: tuple[float, float] = (0.0, 1.0),
) -> Interval:
    """The interval of a mean of scores within ``limits``: avg@k, win rates, ratings, averages over seeds.

    One run of right and wrong answers gets Wilson's interval; other scores between finite limits, as shares of the
    way from the lower to the upper, Wilson's at the effective number of problems p(1-p)/Var(mean), with Student's
    quantile at the degrees of freedom behind that variance: it stays within the limits and holds its level for skewed
    scores and few seeds, where ± 1.96 SE does not. Without finite limits it is :func:`unbounded_interval`. ``seeds`` is
    the variance between seeds where it is known better than from these few (``pooled_seed_variance``).
    """
    cells = cell_means(scores)
    if limits != (0.0, 1.0):
        low, high = limits
        if not (math.isfinite(low) and math.isfinite(high)):
            return unbounded_interval(cells, level, seeds, limits)
        width = high - low
        shares = mean_interval((cells - low) / width, level, seeds and seeds.scaled(1 / width))
        return Interval(low + width * shares.low, low + width * shares.high)
    problems, mean = cells.shape[1], float(cells.mean())
    if len(cells) == 1 and np.isin(cells, (0, 1)).all():
        return wilson(float(cells.sum()), problems, level)
    spread = variance_of_mean(cells, seeds)
    # Equal scores do not reveal their variance, so assume the largest one possible, that of right or wrong answers.
    # A mean at an end of the scale leaves no room for a variance either, whatever the seeds of other rows do.
    if spread.value == 0 or mean in (0.0, 1.0):
        return wilson(mean * problems, problems, level)
    # The number of right-or-wrong problems whose mean would have this variance. Few seeds estimate the variance badly,
    # so the quantile is that of Student's t with its degrees of freedom.
    effective = mean * (1 - mean) / spread.value
    return _score_interval(mean, effective, stdtrit(spread.freedom, (1 + level) / 2))


def unbounded_interval(
    scores: ArrayLike, level: float = 0.95, seeds: SeedVariance | None = None, limits: tuple[float, float] = REALS
) -> Interval:
    """The interval of a mean of scores without two finite limits, such as divergences in nats.

    One run: the bootstrap's over problems. Several seeds: Student's t, since resampling two to five seeds would
    underestimate the tails. It is cut at ``limits``; equal scores, or a single one, leave it empty.
    """
    cells = cell_means(scores)
    mean, spread = float(cells.mean()), variance_of_mean(cells, seeds)
    if spread.value == 0:
        return Interval(mean, mean)
    if len(cells) == 1:
        interval = hierarchical_bootstrap(cells, level)
    else:
        interval = around(mean, spread.value, spread.freedom, level)
    return Interval(max(interval.low, limits[0]), min(interval.high, limits[1]))


def around(mean: float, variance: float, freedom: float, level: float = 0.95) -> Interval:
    """Student's t interval of a mean with this ``variance``, estimated with ``freedom`` degrees of freedom."""
    half = float(stdtrit(freedom, (1 + level) / 2)) * math.sqrt(variance)
    return Interval(mean - half, mean + half)


def pass_at_k(n: int, correct: ArrayLike, k: int) -> NDArray[np.float64]:
    """The probability that one of k samples is right, 1 - C(n-c, k)/C(n, k), unbiased (arXiv 2107.03374, eq. 1).

    ``correct`` [N]: how many of the ``n`` samples of each problem are right.
    """
    counts = np.asarray(correct)
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {max(k, 1)} samples of each problem, there are {n}")
    if counts.size and not (counts.min() >= 0 and counts.max() <= n):
        raise ValueError(f"correct counts must lie in 0..{n}")
    return np.array([1 - np.prod(1 - k / np.arange(n - c + 1, n + 1)) for c in counts.tolist()])


def avg_at_k(scores: ArrayLike) -> NDArray[np.float64]:
    """The mean score of each problem [N] over its samples [N, K]; their mean is pass@1 with less noise."""
    return np.asarray(scores, dtype=float).mean(axis=-1)


# -- two methods on the same problems ------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """Whether B differs from A on the same problems (and seeds). ``difference`` is B - A."""

    difference: float
    interval: Interval
    p: float
    test: str
    only_a: int  # cells in which A's score is higher
    only_b: int
    spread: Spread


def compare(
    a: ArrayLike,
    b: ArrayLike,
    draws: int = DRAWS,
    seed: int = 0,
    seeds: SeedVariance | None = None,
    width: float = 1.0,
) -> Comparison:
    """Paired comparison of two score arrays of one shape.

    With several seeds the interval is that of Student's t, like the test, so that the two agree; resampling two
    to five seeds would underestimate the tails. With one run it is the paired bootstrap's.
    ``seeds`` is the variance between seeds of one method, pooled over methods (``pooled_seed_variance``). ``width`` is
    the largest difference that two scores can have; the interval ends there.
    """
    p, test = paired_test(a, b, draws, seed, seeds)
    gap = cell_means(b) - cell_means(a)
    spread = variance_of_mean(gap, of_difference(seeds))
    # The interval follows the test, so that a p below 0.05 and an interval without 0 go together.
    if test == PAIRED_T:
        interval = around(float(gap.mean()), spread.value, spread.freedom)
    else:
        interval = paired_bootstrap(a, b, draws=draws, seed=seed)
    # Student's t knows no bounds, but no difference of two scores can exceed the scale.
    interval = Interval(max(interval.low, -width), min(interval.high, width))
    only_a, only_b = int((gap < 0).sum()), int((gap > 0).sum())
    return Comparison(float(gap.mean()), interval, p, test, only_a, only_b, spread)


def bootstrap_of(
    statistic: Callable[[list[float]], float], values: Sequence[float], level: float = 0.95, seed: int = 0
) -> Interval:
    """The percentile bootstrap interval of any statistic of the values [N] of problems (Efron 1979).

    Percentiles are widened for few problems, as in :func:`hierarchical_bootstrap`. Draws that have no value (NaN) are
    left out; one problem, or equal ones, leave the interval empty.
    """
    whole, n = statistic(list(values)), len(values)
    rng = np.random.default_rng(seed)
    drawn = [statistic([values[i] for i in rng.integers(0, n, n)]) for _ in range(STATISTIC_DRAWS if n > 1 else 0)]
    finite = [value for value in map(float, drawn) if math.isfinite(value)]
    if not finite:
        return Interval(float(whole), float(whole))
    tail = widened_tail(n - 1, level)
    low, high = np.quantile(finite, (tail, 1 - tail))
    # A statistic such as the median of an even number may lie between the values that its draws take.
    return Interval(min(float(low), float(whole)), max(float(high), float(whole)))


def paired_bootstrap(a: ArrayLike, b: ArrayLike, level: float = 0.95, draws: int = DRAWS, seed: int = 0) -> Interval:
    """The bootstrap interval of the mean of B - A over the same problems and seeds, which are drawn as pairs."""
    first, second = cell_means(a), cell_means(b)
    if first.shape != second.shape:
        raise ValueError(f"paired scores must have one shape, got {first.shape} and {second.shape}")
    return hierarchical_bootstrap(second - first, level, draws, seed)


def paired_test(
    a: ArrayLike, b: ArrayLike, draws: int = DRAWS, seed: int = 0, seeds: SeedVariance | None = None
) -> tuple[float, str]:
    """Two-sided p and the name of the test for score arrays of one shape: [N], [S, N] or [S, N, K].

    One run of right and wrong answers: exact McNemar. One run of averages: sign flips over problems. Several
    seeds: Student's t with seeds and problems both random, since flips over problems alone would treat these
    students as all that the two methods can produce. Two or three seeds hardly estimate the variance between seeds:
    give the pooled ``seeds`` where there are more methods; the test then has its nominal size.
    """
    first, second = cell_means(a), cell_means(b)
    if first.shape != second.shape:
        raise ValueError(f"paired scores must have one shape, got {first.shape} and {second.shape}")
    gap = second - first
    spread = variance_of_mean(gap, of_difference(seeds))
    # Several seeds: seeds and problems are both random. Equal differences have no variance and go to the sign flips.
    if len(gap) > 1 and spread.value > 0:
        error = math.sqrt(spread.value)
        return float(2 * stdtr(spread.freedom, -abs(gap.mean()) / error)), PAIRED_T
    # One run of right and wrong answers: only the problems on which the two differ are evidence.
    if len(gap) == 1 and np.isin((first, second), (0, 1)).all():
        return mcnemar(int((gap < 0).sum()), int((gap > 0).sum())), "exact McNemar"
    # Averages, and seeds without variance: under no difference the sign of each problem's gap is arbitrary.
    return sign_flip(gap.mean(axis=0), draws, seed), "sign flips over problems"


def mcnemar(only_a: int, only_b: int) -> float:
    """Exact two-sided p of the discordant pairs (McNemar 1947): a fair coin tossed only_a + only_b times."""
    n = only_a + only_b
    return min(1.0, 2 * float(bdtr(min(only_a, only_b), n, 0.5))) if n else 1.0


def sign_flip(differences: ArrayLike, draws: int = DRAWS, seed: int = 0) -> float:
    """Two-sided permutation p of a mean difference [N] under random signs; exact up to 12 problems."""
    gap = np.asarray(differences, dtype=float)
    gap = gap[gap != 0]  # a zero has no sign to flip
    if not gap.size:
        return 1.0
    # Slightly less than the observed sum, so that rounding does not exclude sign patterns that tie with it.
    reached = abs(gap.sum()) - 1e-9 * np.abs(gap).sum()
    if gap.size <= _EXACT_PROBLEMS:
        signs = np.array(list(itertools.product((-1.0, 1.0), repeat=gap.size)))
        return float(np.mean(np.abs(signs @ gap) >= reached))
    signs = np.random.default_rng(seed).choice((-1.0, 1.0), size=(draws, gap.size))
    # Count the observed signs as one more draw, so that p is never 0 (Phipson & Smyth 2010).
    return float((1 + np.count_nonzero(np.abs(signs @ gap) >= reached)) / (1 + draws))


def difference_of_counts(correct_a: float, total_a: int, correct_b: float, total_b: int) -> float:
    """Two-sided p of two unpaired proportions (pooled z), for reported scores without single verdicts."""
    # Under the hypothesis of no difference both proportions are one, estimated from all counts together.
    pooled = (correct_a + correct_b) / (total_a + total_b)
    variance = pooled * (1 - pooled) * (1 / total_a + 1 / total_b)
    gap = correct_b / total_b - correct_a / total_a
    return float(2 * ndtr(-abs(gap) / math.sqrt(variance))) if variance > 0 else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for multiple tests by Holm's step-down method (1979), in the given order."""
    p = np.asarray(p_values, dtype=float)
    order = np.argsort(p, kind="stable")
    # Multiply the i-th smallest p by the number of hypotheses not yet rejected; the running maximum keeps the adjusted
    # values in the order of p. This controls the family-wise error like Bonferroni, with more power.
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted.tolist()


# -- planning ------------------------------------------------------------------------------------------------


def minimum_detectable_effect(
    n: int, p: float, power: float = 0.8, level: float = 0.95, discordant: float | None = None
) -> float:
    """The smallest gain over a score of ``p`` that ``n`` problems detect with ``power``; inf if none.

    Unpaired unless ``discordant`` gives the share of problems on which the two methods differ; the gain then
    solves gain = reach * sqrt(variance(gain) / n) with variance p(1-p) + q(1-q), or discordant - gain².
    """
    ratio = n / reach(power, level) ** 2 + 1
    # The variance depends on the gain itself, so the gain is the positive root of a quadratic.
    if discordant is not None:
        gain, largest = math.sqrt(discordant / ratio), min(discordant, 1 - p)
    else:
        tilt = 1 - 2 * p
        gain, largest = (tilt + math.sqrt(tilt**2 + 8 * p * (1 - p) * ratio)) / (2 * ratio), 1 - p
    return gain if gain <= largest else math.inf


def problems_needed(comparison: Comparison, seeds: int, power: float = 0.8, level: float = 0.95) -> float:
    """The number of problems that would detect the difference with ``seeds`` training seeds; inf if none."""
    # The variance of the mean that detects this difference, less the part that more problems do not reduce.
    allowed = (comparison.difference / reach(power, level)) ** 2 - comparison.spread.seeds / seeds
    return _count(comparison.spread.problems + comparison.spread.rest / seeds, allowed)


def seeds_needed(comparison: Comparison, problems: int, power: float = 0.8, level: float = 0.95) -> float:
    """The number of training seeds that would detect the difference on ``problems`` problems; inf if none."""
    # As above with the roles exchanged: more seeds do not reduce the part that the problems contribute.
    allowed = (comparison.difference / reach(power, level)) ** 2 - comparison.spread.problems / problems
    return _count(comparison.spread.seeds + comparison.spread.rest / problems, allowed)


def scale_needed(comparison: Comparison, seeds: int, problems: int, power: float = 0.8, level: float = 0.95) -> float:
    """The factor by which seeds and problems must both grow to detect the difference; inf if none.

    Solves (V/k + R/k²) = (difference / reach)² for k, V the variance of the mean from seeds and from problems
    as they are, R that of their cells.
    """
    allowed = (comparison.difference / reach(power, level)) ** 2
    spread = comparison.spread
    single, cells = spread.seeds / seeds + spread.problems / problems, spread.rest / (seeds * problems)
    return (single + math.sqrt(single**2 + 4 * allowed * cells)) / (2 * allowed) if allowed > 0 else math.inf


def _count(variance_of_one: float, allowed: float) -> float:
    return math.ceil(max(variance_of_one / allowed, 1)) if allowed > 0 else math.inf


def reach(power: float, level: float) -> float:
    """The size of a detectable difference in standard errors, at ``level`` with ``power``."""
    return normal_quantile(level) + float(ndtri(power))


def normal_quantile(level: float) -> float:
    """How many standard errors lie on each side of a two-sided normal interval at ``level``: 1.96 at 0.95."""
    return float(ndtri((1 + level) / 2))


def _score_interval(p: float, n: float, quantile: float) -> Interval:
    centre = (p + quantile**2 / (2 * n)) / (1 + quantile**2 / n)
    half = quantile / (1 + quantile**2 / n) * math.sqrt(p * (1 - p) / n + quantile**2 / (4 * n**2))
    return Interval(float(max(centre - half, 0.0)), float(min(centre + half, 1.0)))
