"""How well the validity of steps is estimated, and at what cost.

The report adds up over steps and processes and is part of a checkpoint, so a resumed run tells the same.
"""

from __future__ import annotations

from collections.abc import Sequence as Seq
from typing import Any

from harness.training.cost import Cost

BINS = 100  # of scores in [0, 1], for the agreement with a checker


class ValidityReport:
    """What estimating validity cost, and how it agrees with an exact checker."""

    def __init__(self) -> None:
        self.right, self.wrong = [0] * (BINS + 1), [0] * (BINS + 1)  # estimates of valid and of invalid steps
        self.cost = Cost()

    def compare(self, values: Seq[float], checked: Seq[float | None]) -> None:
        """Estimates next to the checker's verdicts; steps that either does not know are left out."""
        for value, valid in zip(values, checked, strict=True):
            if value == value and valid is not None:
                side = self.right if valid >= 0.5 else self.wrong
                side[round(min(max(value, 0.0), 1.0) * BINS)] += 1

    def spend(self, cost: Cost) -> None:
        self.cost.add(
            teacher_forward_tokens=cost.teacher_forward_tokens,
            generated_tokens=cost.generated_tokens,
            student_tokens=cost.student_tokens,
            seconds=cost.seconds,
        )

    @property
    def auroc(self) -> float | None:
        """The chance that a valid step has a higher estimate than an invalid one; ties count half."""
        right, wrong = sum(self.right), sum(self.wrong)
        if not right or not wrong:
            return None
        below, won = 0, 0.0
        for valid, invalid in zip(self.right, self.wrong, strict=True):
            won += valid * (below + invalid / 2)
            below += invalid
        return won / (right * wrong)

    def facts(self) -> dict[str, Any]:
        """For the record: agreement, how many steps were compared, and the cost of estimating."""
        return {
            "auroc": self.auroc,
            "compared": {"valid": sum(self.right), "invalid": sum(self.wrong)},
            "generated_tokens": self.cost.generated_tokens,
            "teacher_forward_tokens": self.cost.teacher_forward_tokens,
            "student_tokens": self.cost.student_tokens,
            "seconds": self.cost.seconds,
        }

    def state(self) -> dict[str, Any]:
        """Plain numbers, to be added up over processes by :meth:`sum`."""
        return {"right": list(self.right), "wrong": list(self.wrong), "cost": self.cost.as_dict()}

    def load(self, state: dict[str, Any]) -> None:
        self.right, self.wrong, self.cost = list(state["right"]), list(state["wrong"]), Cost(**state["cost"])

    @classmethod
    def of(cls, state: dict[str, Any]) -> dict[str, Any]:
        """The facts of a state."""
        report = cls()
        report.load(state)
        return report.facts()

    @staticmethod
    def sum(states: Seq[dict[str, Any]]) -> dict[str, Any]:
        """The states of all processes as one; seconds are those of the slowest."""
        costs = [state["cost"] for state in states]
        cost = {name: sum(c[name] for c in costs) for name in costs[0]} | {"seconds": max(c["seconds"] for c in costs)}
        columns = {side: [sum(n) for n in zip(*(s[side] for s in states), strict=True)] for side in ("right", "wrong")}
        return columns | {"cost": cost}
