"""What a row of a single training seed leaves open: how far another seed, or another CPU, would move its score.

The interval of such a row covers its problems alone. Rounding on another CPU moves a score by less than another seed
does where the training text is fixed, and by as much where the student's own samples are trained on (measured in
results/rounding). So the spread between seeds stands for both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from harness.leaderboard.inference import Group
from harness.metrics import PERCENT

MICRO_POINTS = 2.4  # standard deviation between seeds of a score in the micro world, over results/micro
ENOUGH = 2  # degrees of freedom from which a table's own rows tell the spread


def note(groups: Sequence[Group]) -> list[str]:
    """The footnote for the trained rows of one seed in a table; nothing where there are none."""
    trained = [group for group in groups if not group.reference]
    if all(len(group.records) > 1 for group in trained):
        return []
    scale = groups[0].scale
    said = "one seed: another seed or another CPU moves such a score by"
    spread = deviation(trained)
    if spread is not None:
        return [f"{said} about {scale.text(spread)} {scale.points} (SD, from the rows of several seeds)"]
    if groups[0].first["world"] == "micro" and scale == PERCENT:
        return [f"{said} about {MICRO_POINTS:g} points (SD, measured in results/micro and results/rounding)"]
    return [f"{said} an amount that no row here tells; run two more seeds (--seed 0 1 2)"]


def deviation(groups: Sequence[Group]) -> float | None:
    """The standard deviation of a score between seeds, pooled over the rows that have several; None with too few."""
    scores = [[record["score"] for record in group.records] for group in groups if len(group.records) > 1]
    freedom = sum(len(row) - 1 for row in scores)
    if freedom < ENOUGH:
        return None
    return math.sqrt(sum(float(np.var(row, ddof=1)) * (len(row) - 1) for row in scores) / freedom)
