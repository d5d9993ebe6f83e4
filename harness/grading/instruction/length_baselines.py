"""Constants of AlpacaEval's length-controlled fit: instruction difficulties and gamed baselines.

alpaca_eval downloads both from a hub, as ``instruction_difficulty.csv`` and ``df_gamed.csv``. The first is derived
from public annotations and read from ``$HARNESS_DATA/alpaca_eval/derived/``. The second, the judgements of a verbose
and a concise version of gpt-4-1106-preview, is in no public repository. It is used if it is at
``$HARNESS_DATA/alpaca_eval/df_gamed.csv``; otherwise :func:`recovered` replaces it.

How it was recovered. The gamed rows enter the fit of any model only through the gradient of their loss,
0.1 * sum_r (sigmoid(phi t_r + psi d_r) - p_r) (t_r, d_r), with t the tanh of the length gap and d the difficulty.
Their labels p therefore matter only through two numbers, sum_r p_r (t_r, d_r), whichever model is fitted. At the
published weights of a model with public annotations the whole gradient is zero, which yields these two numbers; the
three available models agree on them to 0.3 % and 1.5 %. They are represented here by the logistic whose labels have
these sums. The length gaps are assumed normal around the published mean lengths of the two baselines; the result hardly
depends on their spread.

With these baselines the fit gives 5.87, 19.22 and 9.85 % for alpaca-7b, gpt-3.5-turbo-1106 and wizardlm-13b (published:
5.88, 19.30 and 9.83), and against text-davinci-003, which was not used for the recovery, 26.35, 75.95 and 63.09
(published: 26.29, 75.56 and 62.55). Without gamed baselines the error is up to 1.2 and 4.2 points.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist

import numpy as np
from scipy.special import expit

from harness.errors import BadInput

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
    rows = _rows("alpaca_eval/derived/instruction_difficulty.csv", "instruction_difficulty")
    return None if rows is None else [float(row["instruction_difficulty"]) for row in rows]


def read_gamed() -> Gamed | None:
    """The baselines of alpaca_eval's own ``df_gamed.csv``; None if the file is missing."""
    columns = ("preference", "std_delta_len", "instruction_difficulty")
    rows = _rows("alpaca_eval/df_gamed.csv", *columns)
    return None if rows is None else Gamed(*(np.array([float(r[c]) for r in rows]) for c in columns))


def _rows(local: str, *columns: str) -> list[dict[str, str]] | None:
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
