"""What AlpacaEval's length-controlled fit is held in place with: instruction difficulties, gamed baselines.

alpaca_eval fetches both from a hub, as ``instruction_difficulty.csv`` and ``df_gamed.csv``. The first can be
derived from public annotations; ``$HARNESS_DATA/alpaca_eval/derived/`` holds it. The second, the judgements
of a verbose and a concise version of gpt-4-1106-preview, is in no public repository. Put at
``$HARNESS_DATA/alpaca_eval/df_gamed.csv`` it is used as it is; without it :func:`recovered` stands in.

How it was recovered. The gamed rows enter the fit of every model only through the gradient of their loss,
0.1 * sum_r (sigmoid(phi t_r + psi d_r) - p_r) (t_r, d_r), with t the tanh of the length gap and d the
difficulty. Their labels p thus count through two numbers alone, sum_r p_r (t_r, d_r), whatever model is
fitted. At the published weights of a model whose annotations are public the whole gradient is zero, which
gives those two numbers; the three models whose annotations are at hand agree on them to 0.3 % and 1.5 %. Here
they are written as the logistic whose labels have these sums. The length gaps are taken as normal, about the
published mean lengths of the two baselines; the result hardly depends on their spread.

With it the fit gives 5.87, 19.22 and 9.85 % for alpaca-7b, gpt-3.5-turbo-1106 and wizardlm-13b, published
5.88, 19.30 and 9.83; against text-davinci-003, which had no part in the recovery, 26.35, 75.95 and 63.09,
published 26.29, 75.56 and 62.55. Without any gamed baseline it is up to 1.2 and 4.2 points off.
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
    """The two gamed baselines of AlpacaEval 2 as far as the published weights tell of them."""
    n = len(difficulty)
    normal = NormalDist()
    # a low-discrepancy sequence, so that the gaps are spread evenly over the difficulties
    spread = np.array([normal.inv_cdf((i * 0.6180339887498949 + 0.5) % 1.0) for i in range(n)])
    gap = np.concatenate([(REFERENCE_LENGTH - mean) / GAP_SPREAD + spread for mean in GAMED_LENGTHS])
    repeated = np.tile(np.asarray(difficulty, dtype=float), len(GAMED_LENGTHS))
    phi, psi = RECOVERED_WEIGHTS
    label = expit(phi * np.tanh(gap) + psi * repeated)
    return Gamed(label, gap, repeated, "length_controlled_v1, gamed baselines recovered")


def read_difficulty() -> list[float] | None:
    """AlpacaEval's difficulty of each instruction, in the order of its file; None where it is not given."""
    rows = _rows("alpaca_eval/derived/instruction_difficulty.csv", "instruction_difficulty")
    return None if rows is None else [float(row["instruction_difficulty"]) for row in rows]


def read_gamed() -> Gamed | None:
    """alpaca_eval's own ``df_gamed.csv``; None where it is not given."""
    columns = ("preference", "std_delta_len", "instruction_difficulty")
    rows = _rows("alpaca_eval/df_gamed.csv", *columns)
    return None if rows is None else Gamed(*(np.array([float(r[c]) for r in rows]) for c in columns))


def _rows(local: str, *columns: str) -> list[dict[str, str]] | None:
    """The rows of a CSV file below ``HARNESS_DATA``. Raises BadInput naming the line without a number."""
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
