"""The length-controlled win rate of AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475), computed offline.

Judges prefer long answers. The preferences are therefore regressed on the length gap, and the win rate is the one
that the regression predicts for equal lengths. With m_i the probability that the model wins instruction i::

    logit m_i   = phi * tanh(gap_i / sd(gap)) + psi * difficulty_i + theta
    gap_i       = characters of the reference - characters of the candidate
    LC win rate = mean_i sigmoid(psi * difficulty_i + theta)

The fit is an L1-regularised logistic regression on soft labels without intercept (theta is penalised like the other
weights), with a strength chosen by 5-fold cross-validation, as in ``alpaca_eval.metrics.glm_winrate``; here it is
solved to rounding, there to liblinear's tolerance. Two more baselines, a verbose and a concise version of the
reference, regularise phi and psi (theta is 0 for them): see ``length_baselines``.
"""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist, fmean, stdev

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from threadpoolctl import threadpool_limits

from harness.errors import BadInput
from harness.grading.judges.judgement import Judgement

STRENGTHS = np.logspace(-4, 4, 10)  # inverse strengths of the L1 penalty that cross-validation chooses from
FOLDS = 5
GAMED_WEIGHT = 0.2 / 2  # weight of each row of the two gamed baselines


@dataclass(frozen=True)
class LengthControlled:
    """``win_rate`` and its standard error in [0, 1]; ``weights`` are phi, psi (0 if left out), theta.

    ``formula`` is alpaca_eval's name of the fit: ``length_controlled_v1``, the published one, ``_noreg``
    without the gamed baselines, ``_minimal`` without difficulties too.
    """

    win_rate: float
    standard_error: float
    formula: str
    weights: tuple[float, float, float]


def length_controlled(
    scores: Sequence[float | None],
    reference_lengths: Sequence[int],
    candidate_lengths: Sequence[int],
    difficulty: Sequence[float] | None = None,
    gamed: Gamed | None = None,
) -> LengthControlled | None:
    """The win rate at equal length over all N items, fitted on the items that the judge answered.

    ``scores`` [N] are the candidate's in [0, 1], None if unanswered; lengths [N] are in characters;
    ``difficulty`` [N] is AlpacaEval's per instruction. None if fewer than ``FOLDS`` items were answered.
    """
    labels = np.array([np.nan if score is None else score for score in scores], dtype=float)
    answered = ~np.isnan(labels)
    if answered.sum() < FOLDS:
        return None
    # Features: tanh of the standardised gap, the difficulty if known, and a constant for theta.
    gap = np.asarray(reference_lengths, dtype=float) - np.asarray(candidate_lengths, dtype=float)
    spread = gap.std(ddof=1)
    columns = [np.tanh(gap / spread) if spread > 0 else np.zeros_like(gap), np.ones_like(gap)]
    formula = "length_controlled_minimal"
    if difficulty is not None:
        columns.insert(1, np.asarray(difficulty, dtype=float))
        formula = "length_controlled_noreg"
    features = np.stack(columns, axis=1)  # [N, 3]; [N, 2] without difficulties
    x, y, weight = features[answered], labels[answered], np.ones(answered.sum())
    if gamed is not None and difficulty is not None:
        held = np.stack([np.tanh(gamed.gap), gamed.difficulty, np.zeros_like(gamed.gap)], axis=1)
        x, y = np.concatenate([held, x]), np.concatenate([gamed.preference, y])
        weight = np.concatenate([np.full(len(held), GAMED_WEIGHT), weight])
        formula = gamed.formula
    coefficients = fit_logistic(x, y, weight)
    # Predict for all items, with the length gap set to 0.
    features[:, 0] = 0.0
    predicted = expit(features @ coefficients)
    phi, *psi, theta = coefficients.tolist()
    return LengthControlled(
        win_rate=float(predicted.mean()),
        standard_error=float(predicted.std(ddof=1) / np.sqrt(len(predicted))),
        formula=formula,
        weights=(phi, psi[0] if psi else 0.0, theta),
    )


def fit_logistic(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Coefficients [F] of soft labels ``y`` [N] on ``x`` [N, F], the penalty chosen by cross-validation."""
    fold = _folds(len(y))

    def held_out_loss(strength: float) -> float:
        losses = []
        for k in range(FOLDS):
            train, held = fold != k, fold == k
            w = solve_logistic(x[train], y[train], weight[train], strength)
            losses.append(np.mean(weight[held] * _cross_entropy(x[held] @ w, y[held])))
        return float(np.mean(losses))

    # The problem is too small for BLAS threads: their synchronisation takes minutes on a busy machine.
    with threadpool_limits(1, user_api="blas"):
        return solve_logistic(x, y, weight, min(STRENGTHS, key=held_out_loss))


def solve_logistic(x: np.ndarray, y: np.ndarray, weight: np.ndarray, strength: float) -> np.ndarray:
    """The w [F] that minimises |w|_1 + strength * sum_i weight_i * cross_entropy(y_i, sigmoid(x_i w)).

    With w = u - v and u, v >= 0 the penalty is smooth: u + v.
    """
    n = x.shape[1]

    def objective(uv: np.ndarray) -> tuple[float, np.ndarray]:
        z = x @ (uv[:n] - uv[n:])
        value = uv.sum() + strength * np.sum(weight * _cross_entropy(z, y))
        slope = strength * (x.T @ (weight * (expit(z) - y)))
        return value, np.concatenate([1 + slope, 1 - slope])

    options = {"ftol": 1e-15, "gtol": 1e-9, "maxiter": 2000}
    bounds = [(0, None)] * (2 * n)
    solution = minimize(objective, np.zeros(2 * n), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return solution.x[:n] - solution.x[n:]


def _cross_entropy(z: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The binary cross-entropy [N] of the logits ``z`` and the soft labels ``y``, in nats."""
    return np.logaddexp(0, z) - y * z


def _folds(n: int) -> np.ndarray:
    """The fold [N] of each item, as scikit-learn's GroupKFold assigns n groups of equal size."""
    from sklearn.model_selection import GroupKFold

    fold = np.empty(n, dtype=int)
    for k, (_, held) in enumerate(GroupKFold(FOLDS).split(np.arange(n), groups=np.arange(n))):
        fold[held] = k
    return fold


# Constants of AlpacaEval's length-controlled fit: instruction difficulties and gamed baselines.
#
# alpaca_eval downloads both from a hub, as ``instruction_difficulty.csv`` and ``df_gamed.csv``. The first is derived
# from public annotations and read from ``$HARNESS_DATA/alpaca_eval/derived/``. The second, the judgements of a
# verbose and a concise version of gpt-4-1106-preview, is in no public repository. It is used if it is at
# ``$HARNESS_DATA/alpaca_eval/df_gamed.csv``; otherwise :func:`recovered` replaces it.
#
# How it was recovered. The gamed rows enter the fit of any model only through the gradient of their loss, 0.1 * sum_r
# (sigmoid(phi t_r + psi d_r) - p_r) (t_r, d_r), with t the tanh of the length gap and d the difficulty. Their labels
# p therefore matter only through two numbers, sum_r p_r (t_r, d_r), whichever model is fitted. At the published
# weights of a model with public annotations the whole gradient is zero, which yields these two numbers; the three
# available models agree on them to 0.3 % and 1.5 %. They are represented here by the logistic whose labels have these
# sums. The length gaps are assumed normal around the published mean lengths of the two baselines; the result hardly
# depends on their spread.
#
# With these baselines the fit gives 5.87, 19.22 and 9.85 % for alpaca-7b, gpt-3.5-turbo-1106 and wizardlm-13b
# (published: 5.88, 19.30 and 9.83), and against text-davinci-003, which was not used for the recovery, 26.35, 75.95
# and 63.09 (published: 26.29, 75.56 and 62.55). Without gamed baselines the error is up to 1.2 and 4.2 points.

RECOVERED_WEIGHTS = (-1.807, 0.749)  # phi, psi of the logistic through the gamed labels
REFERENCE_LENGTH, GAMED_LENGTHS = 2049, (2402, 1136)  # mean characters, published: verbose, concise
GAP_SPREAD = 900  # characters, assumed; from 800 to 1,000 the weights above move by 0.001


@dataclass(frozen=True)
class Gamed:
    """Rows [M] of the gamed baselines: soft label in [0, 1], standardised length gap, difficulty."""

    preference: np.ndarray
    gap: np.ndarray
    difficulty: np.ndarray
    formula: str = "length_controlled_v1"


def recovered(difficulty: Sequence[float]) -> Gamed:
    """The two gamed baselines of AlpacaEval 2, recovered from published weights (see the module docstring)."""
    n = len(difficulty)
    normal = NormalDist()
    # A low-discrepancy sequence spreads the gaps evenly over the difficulties.
    spread = np.array([normal.inv_cdf((i * 0.6180339887498949 + 0.5) % 1.0) for i in range(n)])
    gap = np.concatenate([(REFERENCE_LENGTH - mean) / GAP_SPREAD + spread for mean in GAMED_LENGTHS])
    repeated = np.tile(np.asarray(difficulty, dtype=float), len(GAMED_LENGTHS))
    phi, psi = RECOVERED_WEIGHTS
    label = expit(phi * np.tanh(gap) + psi * repeated)
    return Gamed(label, gap, repeated, "length_controlled_v1, gamed baselines recovered")


def read_difficulty() -> list[float] | None:
    """AlpacaEval's difficulty of each instruction, in the order of its file; None if the file is missing."""
    rows = _baseline_rows("alpaca_eval/derived/instruction_difficulty.csv", "instruction_difficulty")
    return None if rows is None else [float(row["instruction_difficulty"]) for row in rows]


def read_gamed() -> Gamed | None:
    """The baselines of alpaca_eval's own ``df_gamed.csv``; None if the file is missing."""
    columns = ("preference", "std_delta_len", "instruction_difficulty")
    rows = _baseline_rows("alpaca_eval/df_gamed.csv", *columns)
    return None if rows is None else Gamed(*(np.array([float(r[c]) for r in rows]) for c in columns))


def _baseline_rows(local: str, *columns: str) -> list[dict[str, str]] | None:
    """The rows of a CSV file below ``HARNESS_DATA``, None if missing. Raises BadInput for a line without a number."""
    path = Path(os.environ.get("HARNESS_DATA", "")) / local
    if "HARNESS_DATA" not in os.environ or not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for line, row in enumerate(rows, 2):
        for column in columns:
            try:
                float(row[column])
            except (KeyError, TypeError, ValueError):
                raise BadInput(f"{path}:{line}: no number under {column!r}") from None
    return rows


# Summarises a set of judgements: win rate, ties, position consistency, unparsed replies.


@dataclass(frozen=True)
class WinRate:
    """Counts, and rates in [0, 1]; ``win_rate`` is the mean score of the answered items, a tie counting one half.

    ``position_consistency`` is the share of comparisons asked in both orders that have the same winner (or tie) in
    both, None if there are none. ``parse_failure_rate`` is the share of replies without a verdict.
    """

    win_rate: float | None
    standard_error: float | None
    wins: int
    losses: int
    ties: int
    unanswered: int
    position_consistency: float | None
    parse_failure_rate: float | None


def win_rate(judgements: Sequence[Judgement]) -> WinRate:
    """The summary of ``judgements``: alpaca_eval's ``get_winrate``, in fractions instead of per cent."""
    scores = [j.score for j in judgements if j.score is not None]
    unparsed = sum(j.unparsed for j in judgements)
    both = [j.by_order for j in judgements if len(j.by_order) == 2]
    return WinRate(
        win_rate=fmean(scores) if scores else None,
        standard_error=stdev(scores) / math.sqrt(len(scores)) if len(scores) > 1 else None,
        wins=sum(score > 0.5 for score in scores),
        losses=sum(score < 0.5 for score in scores),
        ties=sum(score == 0.5 for score in scores),
        unanswered=len(judgements) - len(scores),
        position_consistency=fmean(_winner(a) == _winner(b) for a, b in both) if both else None,
        parse_failure_rate=unparsed / (len(scores) + unparsed) if scores or unparsed else None,
    )


def _winner(score: float) -> int:
    """1 the candidate, -1 the reference, 0 a tie."""
    return (score > 0.5) - (score < 0.5)
