"""Footnotes of a section: facts that a reader needs before comparing its rows.

They name generated problems, reconstructions and ties, conventions on which the methods differ, and the uncertainty
that a single training seed hides. The interval of such a row covers only its problems. Rounding on another CPU moves a
score less than another seed does if the training text is fixed, and as much if the student trains on its own samples
(measured in results/rounding), so the variance between seeds covers both.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from harness.leaderboard import labels
from harness.leaderboard.inference import Group
from harness.metrics import PERCENT

MICRO = "micro world: generated problems, not the benchmark"
# Choices of the method; any other line should be equal on all cards of a table.
OF_THE_METHOD = {
    "divergence", "mixture_weight_of_teacher", "loss_temperature", "reduction", "token_weights", "teacher_signal",
    "text", "on_policy_share", "buffer_age", "signal_bytes_per_token", "trained",
}  # fmt: skip

MICRO_POINTS = 2.9  # standard deviation between seeds of a score in the micro world, over results/micro
ENOUGH = 2  # degrees of freedom from which a table's own rows give the variance between seeds


def differences(groups: Sequence[Group]) -> list[str]:
    """One line on the lines of convention cards that differ among trained rows, with the methods behind each value.

    A line with None does not apply: a method that samples nothing has no sampling temperature.
    """
    trained = [group for group in groups if not group.reference]
    keys = dict.fromkeys(key for group in trained for key in group.first["convention"] if key not in OF_THE_METHOD)
    lines = []
    for key in keys:
        by_value: dict[str, set[str]] = defaultdict(set)
        for group in trained:
            if group.first["convention"].get(key) is not None:
                by_value[str(group.first["convention"][key])].add(labels.name_of(group.first["method"]))
        if len(by_value) > 1:
            values = " | ".join(f"{value} ({', '.join(sorted(names))})" for value, names in sorted(by_value.items()))
            lines.append(f"{key} {values}")
    return [f"{labels.DIFFER}: {'; '.join(lines)}"] if lines else []


def single_seeds(groups: Sequence[Group]) -> list[str]:
    """The footnote on the trained rows of one seed; [] if there are none."""
    trained = [group for group in groups if not group.reference]
    if all(len(group.records) > 1 for group in trained):
        return []
    scale = groups[0].scale
    moves = "one seed: another seed or another CPU moves such a score by"
    spread = deviation(trained)
    if spread is not None:
        return [f"{moves} about {scale.text(spread)} {scale.points} (SD, from the rows of several seeds)"]
    if groups[0].first["world"] == "micro" and scale == PERCENT:
        return [f"{moves} about {MICRO_POINTS:g} points (SD, measured in results/micro and results/rounding)"]
    return [f"{moves} an amount unknown from these rows; run two more seeds (--seed 0 1 2)"]


def deviation(groups: Sequence[Group]) -> float | None:
    """The standard deviation of a score between seeds, pooled over the rows that have several; None with too few."""
    scores = [[record["score"] for record in group.records] for group in groups if len(group.records) > 1]
    freedom = sum(len(row) - 1 for row in scores)
    if freedom < ENOUGH:
        return None
    return math.sqrt(sum(float(np.var(row, ddof=1)) * (len(row) - 1) for row in scores) / freedom)
