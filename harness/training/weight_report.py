"""How far the token weights of a run move its signal.

The report adds up over steps and is part of a checkpoint, so a resumed run tells the same.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any

EDGES = (0.01, 0.25, 0.5, 0.75, 0.9, 1.1, 1.25, 1.5, 2.0, 4.0)  # of weights over their mean
LITTLE = 0.05  # of the signal: weights that move less are as good as none


class WeightReport:
    """The distribution of token weights, and the share of the signal that they move.

    That share is the total variation between the weights of a step, scaled to sum to 1, and equal ones: 0 where all
    are alike, 0.25 where a quarter of the signal lies on other tokens.
    """

    def __init__(self) -> None:
        self.steps, self.moved, self.counts = 0, 0.0, [0] * (len(EDGES) + 1)
        self.least, self.most, self.total, self.tokens = float("inf"), 0.0, 0.0, 0

    def add(self, weights: Seq[float]) -> None:
        """The weights of one optimizer step, of all processes."""
        total, n = sum(weights), len(weights)
        self.least, self.most = min([self.least, *weights]), max([self.most, *weights])
        self.total, self.tokens = self.total + total, self.tokens + n
        if total <= 0:  # the whole step is held back: nothing is left to be moved
            return
        self.steps += 1
        self.moved += sum(abs(w / total - 1 / n) for w in weights) / 2
        for w in weights:
            self.counts[sum(w * n / total >= edge for edge in EDGES)] += 1

    @property
    def share(self) -> float | None:
        """The mean share of the signal that the weights of a step move; None without weights."""
        return self.moved / self.steps if self.steps else None

    def facts(self) -> dict[str, Any]:
        """For the record; empty without weights."""
        if self.share is None:
            return {}
        return {
            "moved": self.share,
            "mean": self.total / self.tokens,
            "least": self.least,
            "most": self.most,
            "edges": list(EDGES),
            "shares": [count / sum(self.counts) for count in self.counts],
        }

    def warnings(self) -> list[str]:
        if self.share is None or self.share >= LITTLE:
            return []
        return [
            f"the token weights move {100 * self.share:.1f} % of the signal, less than {100 * LITTLE:g} %: "
            "the run is as good as one without them"
        ]

    def state(self) -> dict[str, Any]:
        return dict(vars(self))

    def load(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
