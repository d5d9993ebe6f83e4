"""Paper against release: ``python -m results.scripts.paper_release`` writes ``results/papers/PAPER_AND_RELEASE.md``.

Every method whose released code differs from its paper, the difference in a line, and what it does to the score on
one micro task. The two variants are paired by seed and by problem; the records are those of ``results/objectives``.
Records of two versions of the task are compared by their verdicts: graded again, none differs (results/grading).
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from harness import durable, registry
from harness.leaderboard import inference
from harness.leaderboard.inference import Group
from harness.options import build, spelt
from harness.records.store import Store
from harness.stats import intervals

RESULTS = Path(__file__).parents[1]
PAGE = RESULTS / "papers/PAPER_AND_RELEASE.md"
TASK = "amc23@micro"
LEAD = f"""# Paper against release

Methods whose released code differs from their paper, and conventions that share a name. The effect is the release (or
the second convention) minus the paper on `{TASK}`: generated problems, 200 steps, one learning rate for all, paired
by training seed and by problem, in points with its 95 % interval and p-value. Intervals take seeds and problems as
drawn by chance; p-values are Holm-adjusted over all rows. `python -m results.scripts.paper_release` makes this page.
"""


def main() -> None:
    durable.write(PAGE, page().encode())
    print(PAGE.relative_to(RESULTS.parent))


def page() -> str:
    """The whole page."""
    pairs = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))["pair"]
    store = Store(RESULTS / "objectives")
    groups = _groups(store)
    pooled = inference.seed_variance(groups.values())
    compared = [_compared(pair, groups, pooled) for pair in pairs]
    adjusted = iter(intervals.holm([f["comparison"].p for f in compared if f]))
    rows = ["| method | paper | release | effect | p | what differs | source |", "|---|---|---|---:|---:|---|---|"]
    for pair, one in zip(pairs, compared, strict=True):
        effect, p = _effect(one, next(adjusted)) if one else (_why(pair, groups), "")
        names = [f"`{pair[key]}`" if key in pair else "" for key in ("paper", "release")]
        rows.append(
            f"| {pair['method']} | {' | '.join(names)} | {effect} | {p} | {pair['difference']} | {pair['source']} |"
        )
    return LEAD + "\n" + "\n".join(rows) + "\n"


def _groups(store: Store) -> dict[str, Group]:
    """The recorded seeds of every label, by the settings that the label means now."""
    recorded: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}
    for record in store.all()[0]:
        if record["task"] == TASK:
            key = (record["method"]["name"], json.dumps(record["method"]["settings"], sort_keys=True))
            recorded.setdefault(key, {})[record["seed"]] = record
    groups = {}
    for label, settings in _labels():
        name = label.partition("@")[0]
        config = build(registry.find(registry.METHODS, name).Config, settings, label)
        records = recorded.get((name, json.dumps(spelt(config), sort_keys=True)), {})
        if len(records) >= 3:
            ordered = [records[seed] for seed in sorted(records)]
            groups[label] = Group(ordered, inference.read_matrix(ordered, store.completions))
    return groups


def _labels() -> list[tuple[str, Mapping[str, Any]]]:
    """Every method and variant with its settings."""
    labels: list[tuple[str, Mapping[str, Any]]] = []
    for entry in registry.entries(registry.METHODS):
        method = registry.find(registry.METHODS, entry.name)
        labels += [(entry.name, {}), *((f"{entry.name}@{name}", own) for name, own in method.variants.items())]
    return labels


def _compared(pair: Mapping[str, str], groups: Mapping[str, Group], pooled: Any) -> dict[str, Any] | None:
    """The release minus the paper on the seeds and problems of both; None where one of them is not recorded."""
    if not {pair.get("paper"), pair.get("release")} <= groups.keys():
        return None
    one, other = (groups[pair[key]] for key in ("paper", "release"))
    seeds = sorted({r["seed"] for r in one.records} & {r["seed"] for r in other.records})
    scores = []
    for group in (one, other):
        at = {record["seed"]: i for i, record in enumerate(group.records)}
        scores.append(np.asarray(group.matrix.scores)[[at[seed] for seed in seeds]])
    means = [100 * float(each.mean()) for each in scores]
    return {"comparison": intervals.compare(*scores, seeds=pooled), "means": means, "seeds": seeds}


def _effect(one: Mapping[str, Any], p: float) -> tuple[str, str]:
    low, high = (100 * end for end in one["comparison"].interval)
    before, after = one["means"]
    shown = f"{100 * one['comparison'].difference:+.1f} [{low:+.1f} to {high:+.1f}], {before:.1f} to {after:.1f}"
    return f"{shown}, {len(one['seeds'])} seeds", f"{p:.2g}" if p >= 0.0001 else "< 0.0001"


def _why(pair: Mapping[str, str], groups: Mapping[str, Group]) -> str:
    if "why" in pair:
        return f"not measured: {pair['why']}"
    missing = [pair[key] for key in ("paper", "release") if pair[key] not in groups]
    return f"not measured: {', '.join(missing)} not recorded yet"


if __name__ == "__main__":
    main()
