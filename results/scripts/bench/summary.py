"""Sums up ``results/bench`` in one table: what was measured, against what, the goal, and whether it was reached.

    python -m results.scripts.bench.summary [FOLDER]

prints it from the measured numbers; README.md shows it. Times of sides are CPU seconds: they have one thread each, and
wall clocks also count what other work a machine did.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

Line = tuple[str, str, str, str, bool | None]  # what, compared with, goal, measured, reached (None: there was no goal)


def markdown(folder: Path | str) -> str:
    """One row a measurement whose JSON is in ``folder``."""
    lines = ["| what | compared with | goal | measured | reached |", "| --- | --- | ---: | ---: | :---: |"]
    for name, rows in ROWS.items():
        path = Path(folder) / f"{name}.json"
        if path.is_file():
            for *cells, reached in rows(json.loads(path.read_text("utf-8"))["raw"]):
                lines.append(f"| {' | '.join([*cells, {True: 'yes', False: 'no', None: ''}[reached]])} |")
    return "\n".join(lines) + "\n"


def _loss(raw: dict[str, Any]) -> Iterator[Line]:
    sizes, goals = raw["sizes"], raw["goals"]
    what = f"head and objective, V = {sizes['vocab']:,}, {sizes['tokens']:,} tokens"
    for key, name, goal in (("bytes", "memory", goals["memory"]), ("cpu", "CPU time", goals["time"])):
        ratios = {label: _ratio(pairs, key) for label, pairs in raw["methods"].items()}
        over = sorted(label for label, value in ratios.items() if value > goal)
        summary = f"{_percent(min(ratios.values()))} to {_percent(max(ratios.values()))} over {len(ratios)} methods"
        summary += f"; above: {', '.join(over)}" if over else ""
        yield what, f"naive, {name}", f"≤ {_percent(goal)}", summary, not over
    for label, pairs in raw["liger"].items():
        chunk = label.removeprefix("jsd, Liger's ")
        for key, name in (("bytes", "memory"), ("cpu", "CPU time")):
            value = _ratio(pairs, key)
            yield what + ", jsd", f"Liger, {chunk}, {name}", "≤ 100 %", _percent(value), value <= 1


def _train(raw: dict[str, Any]) -> Iterator[Line]:
    for case, pairs in raw.items():
        scale, _, rest = case.partition(", ")
        trainer, _, share = rest.partition(", lambda ")
        cached = not share
        if share == "0.5":  # the mean of the two others
            continue
        kind = "off-policy, teacher cached" if cached else {"0.0": "off-policy", "1.0": "on-policy"}[share]
        goal = 5 if kind == "on-policy" else 2
        yield from _faster(
            f"training step, {kind}, {scale}", "TRL GKDTrainer" if cached else f"TRL {trainer}", goal, pairs
        )


def _generate(raw: dict[str, Any]) -> Iterator[Line]:
    for case, rounds in raw.items():
        name, _, temperature = case.partition(", temperature ")
        pairs = [[{"cpu": side["cpu"] / side["tokens"]} for side in each[:2]] for each in rounds]
        kind = "greedy" if float(temperature) == 0 else "sampled"
        yield from _faster(f"generation, {kind}, {name}", "transformers' generate", 3, pairs)


def _grade(raw: dict[str, Any]) -> Iterator[Line]:
    for name, pairs in raw.items():
        yield from _faster(f"grading all of {name}+", "evalplus", None, pairs, "seconds")


def _overhead(raw: dict[str, Any]) -> Iterator[Line]:
    for name, rounds in raw.items():
        values = [f["whole"] / (f["training"] + f["evaluation"] + f["imports"]) for f in rounds]
        value = statistics.median(values)
        yield f"`harness run`, {name} on amc23@micro", "its parts and imports", "≤ 110 %", _percent(value), value <= 1.1


def _scaling(raw: dict[str, Any]) -> Iterator[Line]:
    for series in raw.get("records", ()):
        if series["size"] == 10_000:
            best = min(r["seconds"] for r in series["rounds"])
            yield "`harness table`, 10,000 records", "", "< 3 s", f"{best:.1f} s", best < 3


ROWS: dict[str, Callable[[dict[str, Any]], Iterator[Line]]] = {
    "loss": _loss,
    "train": _train,
    "generate": _generate,
    "grade": _grade,
    "overhead": _overhead,
    "scaling": _scaling,
}


def _faster(
    what: str, beside: str, goal: float | None, pairs: Sequence[Sequence[dict[str, float]]], key: str = "cpu"
) -> Iterator[Line]:
    """``pairs`` are (ours, theirs); how many times as fast ours is."""
    values = [theirs[key] / ours[key] for ours, theirs in pairs]
    value = statistics.median(values)
    summary = f"{value:.1f} × ({min(values):.1f}–{max(values):.1f})"
    yield what, beside, f"≥ {goal} ×" if goal else "", summary, None if goal is None else value >= goal


def _ratio(pairs: Sequence[Sequence[dict[str, float]]], key: str) -> float:
    return statistics.median(ours[key] / theirs[key] for ours, theirs in pairs)


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"


if __name__ == "__main__":
    print(markdown(sys.argv[1] if len(sys.argv) > 1 else "results/bench"), end="")
