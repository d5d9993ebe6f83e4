"""The variance of a mean score, by source: training seeds, problems, and the residual of their cells.

The model is crossed and random: score[s, i] = mean + seed[s] + problem[i] + rest[s, i]. The samples of a cell
are averaged first, which leaves their noise in ``rest`` (with one seed: in ``problem``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, stdtrit

DRAWS = 4000  # gives the tails of a 95 % interval to a quarter of a percent
_AT_ONCE = 2**22  # numbers drawn at once


class Interval(NamedTuple):
    low: float
    high: float


@dataclass(frozen=True)
class Spread:
    """The variance of a mean over S seeds and N problems, and its parts for one seed, one problem, one cell."""

    seeds: float
    problems: float
    rest: float
    value: float  # the variance of the mean
    freedom: float  # degrees of freedom of ``value`` (Satterthwaite 1946)


class SeedVariance(NamedTuple):
    """The variance of one seed's effect, and the degrees of freedom of its estimate."""

    value: float
    freedom: float

    def scaled(self, factor: float) -> SeedVariance:
        """That of scores multiplied by ``factor``."""
        return SeedVariance(factor**2 * self.value, self.freedom)


def cell_means(scores: ArrayLike) -> NDArray[np.float64]:
    """[S, N] means over samples, from [N], [S, N] or [S, N, K]. Raises ValueError for anything else."""
    cells = np.asarray(scores, dtype=float)
    if cells.ndim == 3:
        cells = cells.mean(axis=2)
    cells = np.atleast_2d(cells)
    if cells.ndim != 2 or not cells.size or not np.isfinite(cells).all():
        raise ValueError("scores must be finite, of shape [N], [S, N] or [S, N, K], and not empty")
    return cells


def variance_of_mean(scores: ArrayLike, seeds: SeedVariance | None = None) -> Spread:
    """Moment estimates of the crossed model; ``seeds`` replaces the estimate from these few seeds."""
    cells = cell_means(scores)
    s, n = cells.shape
    if n < 2:
        return Spread(0.0, 0.0, 0.0, 0.0, 1.0)
    by_seed, by_problem, by_rest = _mean_squares(cells)
    if s == 1:
        return Spread(0.0, by_problem, 0.0, by_problem / n, n - 1.0)
    # Two or three seeds estimate their own variance badly, so use the one pooled over methods where it is given.
    known_with = s - 1.0
    if seeds is not None:
        by_seed, known_with = by_rest + n * seeds.value, seeds.freedom
    problems = max(by_problem - by_rest, 0.0) / s
    # Seeds that vary no more than the residual explains have an estimated variance of 0: seed and residual drop out.
    if by_seed <= by_rest:
        return Spread(0.0, problems, by_rest, by_problem / (s * n), n - 1.0)
    # Satterthwaite: the degrees of freedom of a sum of independent mean squares.
    total = by_seed + max(by_problem - by_rest, 0.0)
    pieces = by_seed**2 / known_with + by_problem**2 / (n - 1) + by_rest**2 / ((s - 1) * (n - 1))
    return Spread((by_seed - by_rest) / n, problems, by_rest, total / (s * n), max(total**2 / pieces, 1.0))


def pooled_seed_variance(tables: Iterable[ArrayLike]) -> SeedVariance | None:
    """The variance between seeds, pooled over several methods; None if no method has two seeds.

    Two or three seeds of one method hardly determine it. Pooling assumes, as any analysis of variance does, that
    methods trained alike have equal variance.
    """
    sum_of_squares, freedom = 0.0, 0.0
    for cells in map(cell_means, tables):
        s, n = cells.shape
        if s > 1 and n > 1:
            by_seed, _, by_rest = _mean_squares(cells)
            # Weight by degrees of freedom. Negative estimates stay in, since dropping them would bias the sum upwards.
            sum_of_squares += (s - 1) * (by_seed - by_rest) / n
            freedom += s - 1
    return SeedVariance(max(sum_of_squares / freedom, 0.0), freedom) if freedom else None


def of_difference(seeds: SeedVariance | None) -> SeedVariance | None:
    """The variance between seeds of a difference of two methods: twice one, as equal seed numbers are independent."""
    return seeds and SeedVariance(2 * seeds.value, seeds.freedom)


def hierarchical_bootstrap(scores: ArrayLike, level: float = 0.95, draws: int = DRAWS, seed: int = 0) -> Interval:
    """The bootstrap interval of a mean, or of a mean difference, over seeds, problems and samples.

    Seed effects, problem effects and residuals are resampled separately, each scaled to their
    unbiased variances (Carpenter, Goldstein & Rasbash 2003, Appl. Statist. 52:431): drawing whole seeds, then
    problems, then samples would count the noise of the samples at every level again. Percentiles are widened
    for few problems or seeds (Hesterberg 2015, Am. Stat. 69:371).
    """
    cells = cell_means(scores)
    spread = variance_of_mean(cells)
    rng = np.random.default_rng(seed)
    means = np.full(draws, cells.mean())
    for effect, variance in zip(_effects(cells), (spread.seeds, spread.problems, spread.rest), strict=True):
        means += _resampled_means(effect.ravel(), variance, draws, rng)
    tail = widened_tail(spread.freedom, level)
    low, high = np.quantile(means, (tail, 1 - tail))
    return Interval(float(low), float(high))


def widened_tail(freedom: float, level: float = 0.95) -> float:
    """The share of a bootstrap's draws below its interval, fewer with few degrees of freedom (Hesterberg 2015)."""
    return ndtr(stdtrit(freedom, (1 - level) / 2))


def _resampled_means(effect: NDArray, variance: float, draws: int, rng: np.random.Generator) -> NDArray:
    """[draws] means of resamples of ``effect`` [M], which is first scaled to ``variance``."""
    # Means over a seed or a problem hold noise of the cells, too, so the effects are scaled to the unbiased variance.
    power = float(np.mean(effect**2))
    if variance == 0 or power == 0:
        return np.zeros(draws)
    scaled = effect * math.sqrt(variance / power)
    # In batches: 4,000 draws of a large benchmark do not fit into memory at once.
    rows = max(_AT_ONCE // len(scaled), 1)
    batches = [min(rows, draws - start) for start in range(0, draws, rows)]
    return np.concatenate([rng.choice(scaled, size=(n, len(scaled))).mean(axis=1) for n in batches])


def _mean_squares(cells: NDArray) -> tuple[float, float, float]:
    """Mean squares by seed, by problem and of the rest; those by seed and of the rest are 0 for one seed."""
    s, n = cells.shape
    seed, problem, rest = _effects(cells)
    by_problem = s * float(problem @ problem) / (n - 1)
    if s == 1:
        return 0.0, by_problem, 0.0
    return n * float(seed @ seed) / (s - 1), by_problem, float((rest**2).sum()) / ((s - 1) * (n - 1))


def _effects(cells: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Seed effects [S], problem effects [N] and what remains [S, N]; each sums to zero."""
    mean = cells.mean()
    seed, problem = cells.mean(axis=1) - mean, cells.mean(axis=0) - mean
    return seed, problem, cells - mean - seed[:, None] - problem
