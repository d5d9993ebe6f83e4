"""How far the token weights of a run move its signal, as a record keeps it and in words.

The report adds up over steps and is part of a checkpoint, so a resumed run tells the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from collections.abc import Sequence as Seq
from typing import Any

EDGES = (0.01, 0.25, 0.5, 0.75, 0.9, 1.1, 1.25, 1.5, 2.0, 4.0)  # of weights over their mean
LITTLE = 0.05  # of the signal: weights that move less change almost nothing


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


def in_words(record: Mapping[str, Any]) -> dict[str, str]:
    """Names and values of the report; empty for a training without token weights."""
    found = record.get("weights") or {}
    said: dict[str, str] = {}
    if "moved" in found:
        said["signal moved"] = f"{100 * found['moved']:.1f} % (total variation from equal weights)"
        said["weight"] = f"mean {found['mean']:.3g}, from {found['least']:.3g} to {found['most']:.3g}"
        said["distribution over the mean"] = _distribution(found["edges"], found["shares"])
    if found.get("means"):
        said["means over training"] = ", ".join(f"{k} {v:.3g}" for k, v in found["means"].items())
    if validity := found.get("validity"):
        counts = validity["compared"]
        if validity["auroc"] is not None:
            said["agreement with the checker"] = (
                f"AUROC {validity['auroc']:.3f} over {counts['valid']} valid and {counts['invalid']} invalid steps"
            )
        said["cost of estimating"] = (
            f"{validity['generated_tokens']:,} tokens generated, {validity['teacher_forward_tokens']:,} through the "
            f"teacher, {validity['seconds']:.1f} s"
        )
    return said


def moves_little(records: Sequence[Mapping[str, Any]]) -> float | None:
    """The mean share of the signal that the weights of these records move, where that is next to nothing."""
    shares = [r["weights"]["moved"] for r in records if "moved" in (r.get("weights") or {})]
    mean = sum(shares) / len(shares) if shares else LITTLE
    return mean if mean < LITTLE else None


def _distribution(edges: Sequence[float], shares: Sequence[float]) -> str:
    """The share of tokens between two edges, where it is not nothing."""
    names = [f"below {edges[0]:g}", *(f"{a:g} to {b:g}" for a, b in itertools.pairwise(edges))]
    names.append(f"from {edges[-1]:g}")
    return ", ".join(
        f"{name}: {100 * share:.0f} %" for name, share in zip(names, shares, strict=True) if share >= 0.005
    )
