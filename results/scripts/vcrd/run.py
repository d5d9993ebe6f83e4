"""Runs a stage of the plan; a run that is recorded is returned as it is, so a stage continues where it was stopped.

    python -m results.scripts.vcrd.run validation [--part 1/2]
    python -m results.scripts.vcrd.run test [--arena slice] [--part 1/2]
    python -m results.scripts.vcrd.run longer [--part 1/2]

Records land in ``results/vcrd``. All runs of a process share one import and one set of teacher texts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from harness.leaderboard import equal_compute
from harness.plan import RunRequest, prepare
from harness.records.store import Store
from harness.run import run
from results.scripts.vcrd import chosen
from results.scripts.vcrd.settings import (
    ARENAS,
    CHOSEN_IN,
    LONGER_SEEDS,
    LONGER_STEPS,
    MARKS,
    ORACLES,
    PLAIN,
    RIVALS,
    SETTINGS,
    TEST,
    TEST_SEEDS,
    VALIDATION,
    VALIDATION_SEEDS,
    words,
)

ROOT = Path("results/vcrd")


@dataclass(frozen=True)
class Cell:
    """One run: a method with settings, in an arena, with one seed."""

    method: str
    recipe: str
    task: str
    seed: int
    settings: list[str] = field(default_factory=list)


def validation() -> Iterator[Cell]:
    """Marks and rivals first, whose costs the tests need; then every setting, seed by seed."""
    recipe = f"arena-{CHOSEN_IN}"
    for seed in VALIDATION_SEEDS:
        for name in (*MARKS, *RIVALS):
            if name not in ("untouched", "teacher") or seed == VALIDATION_SEEDS[0]:
                yield Cell(name, recipe, VALIDATION, seed)
        for settings in (SETTINGS | ORACLES).values():
            yield Cell("vcrd", recipe, VALIDATION, seed, words(settings))


def test(arena: str) -> Iterator[Cell]:
    """The best two, the default and the oracle with their controls, and the rivals, at the cost of the best setting."""
    best, second, oracle = chosen.settings(ROOT)
    budget = chosen.cost(ROOT, "vcrd", best)
    tasks = PLAIN if arena == "plain" else (TEST,)
    recipe = "micro" if arena == "plain" else f"arena-{arena}"
    full = 200 if arena == "plain" else 120
    rows: list[tuple[str, dict[str, object]]] = [("vcrd", best), ("vcrd@shuffled", best), ("vcrd", second)]
    rows += [("vcrd", {}), ("vcrd@shuffled", {}), ("vcrd", oracle), *((name, {}) for name in RIVALS)]
    for seed in TEST_SEEDS:
        for name in MARKS[:2] if seed == TEST_SEEDS[0] else ():
            yield from (Cell(name, recipe, task, seed) for task in tasks)
        for name, settings in rows:
            spent = chosen.cost(ROOT, name.partition("@")[0], settings)
            steps = max(20, round(full * budget / spent, -1))
            for task in tasks:
                yield Cell(name, recipe, task, seed, [*words(settings), f"training.steps={int(steps)}"])


def longer() -> Iterator[Cell]:
    """The rows of the second plan, at the cost of many steps of gkd."""
    best, _, oracle = chosen.settings(ROOT)
    budget = chosen.cost(ROOT, "gkd", {})
    rows: list[tuple[str, dict[str, object]]] = [(name, {}) for name in ("gkd", "seqkd", "selectkd")]
    rows += [(name, settings) for settings in (best, {}, oracle) for name in ("vcrd", "vcrd@shuffled")]
    rows.append(("vcrd", SETTINGS["step-likelihood"]))
    for seed in LONGER_SEEDS:
        for name, settings in rows:
            spent = chosen.cost(ROOT, name.partition("@")[0], settings)
            steps = round(LONGER_STEPS * budget / spent, -1)
            yield Cell(name, f"arena-{CHOSEN_IN}", TEST, seed, [*words(settings), f"training.steps={int(steps)}"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("stage", choices=("validation", "test", "longer"))
    parser.add_argument("--arena", choices=(*ARENAS, "plain"), nargs="*", default=list(ARENAS))
    parser.add_argument("--part", default="1/1", help="which of several processes this is")
    options = parser.parse_args()
    torch.set_num_threads(1)
    part, parts = map(int, options.part.split("/"))
    stages = {"validation": validation, "longer": longer, "test": lambda: (c for a in options.arena for c in test(a))}
    cells = list(stages[options.stage]())
    for cell in cells[part - 1 :: parts]:
        began = time.monotonic()
        request = RunRequest(
            [cell.method], [cell.task], cell.recipe, seeds=(cell.seed,), settings=cell.settings, results=ROOT
        )
        (record,) = run(prepare(request), lambda *_: None, lambda _: None)
        flops = equal_compute.cost(Store(ROOT).get(record["run_id"]))
        print(
            f"{cell.recipe} {cell.method} {' '.join(cell.settings)} seed {cell.seed}: {100 * record['score']:.1f}, "
            f"{flops:.3g} FLOPs, {time.monotonic() - began:.0f} s{', reused' if record['reused'] else ''}",
            flush=True,
        )


if __name__ == "__main__":
    main()
