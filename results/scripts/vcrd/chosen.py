"""Which settings the validation problems choose, and what a run costs: the rules of the plan, read from records."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any

from harness.leaderboard import equal_compute
from harness.options import build
from harness.records.store import Store
from harness.registry import METHODS, find
from results.scripts.vcrd.settings import ORACLES, SETTINGS, VALIDATION, VALIDATION_SEEDS


@cache
def _records(root: Path) -> list[Mapping[str, Any]]:
    return [r for r in Store(root).all()[0] if r["task"] == VALIDATION]


def of(root: Path, method: str, settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The validation records of a method with these settings, by seed."""
    method_class = find(METHODS, method)
    wanted = {f: v for f, v in vars(build(method_class.Config, settings, method)).items()}
    usual = vars(method_class.Config())
    return sorted(
        (
            r
            for r in _records(root)
            if r["method"]["name"] == method and usual | dict(r["method"]["settings"]) == wanted
        ),
        key=lambda r: r["seed"],
    )


def ranked(root: Path, candidates: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[float, str]]:
    """(mean score, name) of the candidates that have every validation seed, best first; of equals the cheaper."""
    rows = []
    for name, settings in candidates.items():
        records = of(root, "vcrd", settings)
        if {r["seed"] for r in records} >= set(VALIDATION_SEEDS):
            rows.append((fmean(r["score"] for r in records), -equal_compute.median_cost(records), name))
    yield from ((score, name) for score, _, name in sorted(rows, reverse=True))


def settings(root: Path) -> tuple[dict[str, object], dict[str, object], dict[str, object]]:
    """The best two readings besides the default, and the best oracle."""
    first, second, *_ = (name for _, name in ranked(root, SETTINGS) if SETTINGS[name])
    oracle = next(name for _, name in ranked(root, ORACLES))
    return SETTINGS[first], SETTINGS[second], ORACLES[oracle]


def cost(root: Path, method: str, settings: Mapping[str, Any]) -> float:
    """FLOPs of one training, estimation included, from the validation records."""
    return equal_compute.median_cost(of(root, method, settings))
