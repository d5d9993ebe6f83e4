"""Equal compute: the number of steps at which the other methods have the cost of the target.

    steps = base steps x cost of the target / cost of the method        (medians over seeds, two significant digits)

:mod:`harness.leaderboard.equal_compute` defines costs and their equality; the anchor here is the target. A method whose
cost equals the target's keeps its run, and so does the target's control, which may differ only in the placement of its
weights. The decision is stored once, so that an interrupted or divided reproduction keeps it although seconds vary.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness import atomic, safe_read
from harness.errors import BadInput
from harness.leaderboard import equal_compute
from harness.records.record import Record, fingerprint

RULE = (
    "every method has as many steps as the cost of {target} buys it (median over seeds of {unit} of training, steps "
    f"rounded to two digits); a method {equal_compute.WITHIN} of that cost keeps its run, and so does the control"
)


@dataclass(frozen=True)
class ComputeBudget:
    unit: str
    target: str
    costs: dict[str, float]  # by arm, of the base run
    base: dict[str, int]  # steps of the base run
    steps: dict[str, int]  # steps at the target's cost, of the arms that need others than the base run's
    key: str  # hash of the base runs' specifications without seeds: another recipe decides again

    @property
    def rule(self) -> str:
        return RULE.format(target=self.target, unit=self.unit)


def decide(base: Mapping[str, Sequence[Record]], target: str, control: str, unit: str, file: Path) -> ComputeBudget:
    """The budget for the arms of ``base`` (records of their base runs, one a seed), as first written to ``file``."""
    specs = {name: {k: v for k, v in records[0]["spec"].items() if k != "seed"} for name, records in base.items()}
    key = fingerprint({"specs": specs, "target": target, "unit": unit})
    if file.is_file():
        try:
            earlier = ComputeBudget(**safe_read.value(safe_read.content(file, safe_read.TABLE)))
        except (BadInput, TypeError) as error:
            raise BadInput(f"{file}: was changed or damaged ({error}); remove it to decide again") from None
        if earlier.key == key:
            return earlier
    costs = {name: equal_compute.median_cost(records, unit) for name, records in base.items()}
    steps = {name: records[0]["cost"]["steps"] for name, records in base.items()}
    bought = {}
    for name in base:
        ratio = costs[target] / costs[name] if costs[name] > 0 else 1.0
        buys = max(two_digits(steps[name] * ratio), 1)
        if name != control and buys != steps[name] and not equal_compute.alike(costs[name], costs[target]):
            bought[name] = buys
    found = ComputeBudget(unit, target, costs, steps, bought, key)
    atomic.write(file, (json.dumps(asdict(found), indent=1) + "\n").encode())
    return found


def two_digits(value: float) -> int:
    """``value`` rounded to two significant digits: 1234 to 1200, 87.6 to 88."""
    if value < 10:
        return round(value)
    digits = 10 ** (math.floor(math.log10(value)) - 1)
    return round(value / digits) * digits
