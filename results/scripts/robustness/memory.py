"""Watches memory over a long run: on-policy training of the embedded pair, generation included, step by step.

    python -m results.scripts.robustness.memory --steps 600 --out results/robustness/memory.md

In the second half of the steps the number of live tensors must stay within 2 %, and the resident memory of the process
must not grow by more than ``--allowed`` bytes a step (slope of a fitted line).
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import linear_regression

from harness.plan import RunRequest, prepare
from results.scripts.robustness import world

SETTINGS = ("training.batch=8", "training.checkpoint_every=50", "training.threads=1", "data.limit=32")


@dataclass
class MemoryWatch:
    """A progress function that measures at every step of a stage. Rows are (step, resident bytes, tensors, bytes)."""

    stage: str
    every: int = 1
    rows: list[tuple[int, int, int, int]] = field(default_factory=list)

    def __call__(self, stage: str, done: int, total: int, words: str) -> None:
        if stage.startswith(self.stage) and done and done % self.every == 0:
            gc.collect()
            number, size = live_tensors()
            self.rows.append((done, resident_bytes(), number, size))

    def slope(self) -> float:
        """Bytes of resident memory a step, over the second half of the rows."""
        half = self.rows[len(self.rows) // 2 :]
        return linear_regression([r[0] for r in half], [r[1] for r in half]).slope


def live_tensors() -> tuple[int, int]:
    """Number and bytes of the tensors that Python can reach, without those that :func:`train` froze."""
    import torch

    tensors = [o for o in gc.get_objects() if issubclass(type(o), torch.Tensor)]
    return len(tensors), sum(t.nbytes for t in tensors)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def train(steps: int, results: Path, every: int, method: str = world.METHOD) -> MemoryWatch:
    """Trains the embedded student for ``steps`` and watches."""
    from harness.students import obtain

    request = RunRequest(
        methods=[method],
        tasks=[world.TASKS[0]],
        settings=[*SETTINGS, f"training.steps={steps}"],
        results=results,
        device="cpu",
    )
    plan, watch = prepare(request), MemoryWatch("train", every)
    # What exists before the training cannot be what the training leaves behind, and most of it belongs to imported
    # modules. Frozen, it is neither collected nor listed, so that a measurement costs milliseconds.
    gc.collect()
    gc.freeze()
    try:
        obtain(plan, plan.trainings[0], watch)
    finally:
        gc.unfreeze()
    return watch


def main(arguments: Sequence[str] | None = None) -> int:
    words = argparse.ArgumentParser(
        prog="python -m results.scripts.robustness.memory", description=__doc__.split("\n\n")[0]
    )
    words.add_argument("--steps", type=int, default=600, help="optimizer steps (default: 600)")
    words.add_argument("--method", default=world.METHOD, help=f"that trains (default: {world.METHOD})")
    words.add_argument("--allowed", type=float, default=8192, help="bytes of growth a step (default: 8192)")
    words.add_argument("--out", type=Path, help="write the page here as well")
    chosen = words.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="harness-memory-") as folder:
        watch = train(chosen.steps, Path(folder), max(1, chosen.steps // 60), chosen.method)
    half = watch.rows[len(watch.rows) // 2 :]
    fewest, most = min(r[2] for r in half), max(r[2] for r in half)
    flat = watch.slope() <= chosen.allowed and most - fewest <= 0.02 * fewest
    page = "\n".join(
        [
            "# Memory over a long training",
            "",
            f"`python -m results.scripts.robustness.memory --method {chosen.method} --steps {chosen.steps}`: over the "
            f"second half of {chosen.steps} steps the resident memory grew by {watch.slope():.0f} bytes a step "
            f"({chosen.allowed:.0f} are allowed; a row of the learning curve takes about 1,000), and between "
            f"{fewest} and {most} tensors were alive. {'Flat.' if flat else 'NOT FLAT.'}",
            "",
            "| step | resident MB | live tensors | their MB |",
            "| ---: | ---: | ---: | ---: |",
            *(f"| {s} | {m / 1e6:.1f} | {n} | {b / 1e6:.2f} |" for s, m, n, b in watch.rows),
            "",
        ]
    )
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(page, "utf-8")
    print(page)
    return 0 if flat else 1


if __name__ == "__main__":
    sys.exit(main())
