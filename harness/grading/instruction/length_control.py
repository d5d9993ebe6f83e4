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

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit
from threadpoolctl import threadpool_limits

from harness.grading.instruction.length_baselines import Gamed

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
    coefficients = fit(x, y, weight)
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


def fit(x: np.ndarray, y: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Coefficients [F] of soft labels ``y`` [N] on ``x`` [N, F], the penalty chosen by cross-validation."""
    fold = _folds(len(y))

    def held_out_loss(strength: float) -> float:
        losses = []
        for k in range(FOLDS):
            train, held = fold != k, fold == k
            w = solve(x[train], y[train], weight[train], strength)
            losses.append(np.mean(weight[held] * _cross_entropy(x[held] @ w, y[held])))
        return float(np.mean(losses))

    # The problem is too small for BLAS threads: their synchronisation takes minutes on a busy machine.
    with threadpool_limits(1, user_api="blas"):
        return solve(x, y, weight, min(STRENGTHS, key=held_out_loss))


def solve(x: np.ndarray, y: np.ndarray, weight: np.ndarray, strength: float) -> np.ndarray:
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
    found = minimize(objective, np.zeros(2 * n), jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return found.x[:n] - found.x[n:]


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
