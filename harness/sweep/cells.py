"""The cells of a grid: one (method, seed) each, with all its tasks, as the words of a ``harness run``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.evaluation import measurement

if TYPE_CHECKING:
    from harness.plan import Plan


@dataclass(frozen=True)
class SweepCell:
    """``words`` follow ``harness``; ``recorded`` are run ids that exist, ``missing`` the tasks still to do."""

    method: str
    seed: int
    words: tuple[str, ...]
    recorded: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"{self.method} seed {self.seed}"

    @property
    def file(self) -> str:
        """A name for its log."""
        return "".join(c if c.isalnum() or c in "@-." else "_" for c in f"{self.method}-s{self.seed}")[-80:]


def cells(plan: Plan) -> list[SweepCell]:
    """The grid of a plan, in its order."""
    found: dict[tuple[str, int], list] = {}
    seeds = len(dict.fromkeys(plan.request.seeds))
    names = [name for name in dict.fromkeys(plan.request.methods) for _ in range(seeds)]
    name_of = {id(training): name for training, name in zip(plan.trainings, names, strict=True)}
    for training, task, run_id in measurement.cells(plan):
        found.setdefault((name_of[id(training)], training.seed), []).append((task, run_id))
    return [
        SweepCell(
            method,
            seed,
            tuple(_words(plan, method, seed)),
            tuple(run_id for _, run_id in tasks if run_id),
            tuple(task.title for task, run_id in tasks if not run_id),
        )
        for (method, seed), tasks in found.items()
    ]


def _words(plan: Plan, method: str, seed: int) -> list[str]:
    asked = plan.request
    words = ["run", "--json", "--method", method, "--seed", str(seed), "--recipe", asked.recipe]
    words += ["--results", str(asked.results), "--device", plan.device]
    words += [word for task in asked.tasks for word in ("--task", task)]
    words += [word for setting in asked.settings for word in ("--set", setting)]
    given = {"--student": asked.student, "--teacher": asked.teacher, "--judge": asked.judge}
    given["--protocol"] = asked.protocol
    return words + [word for name, value in given.items() if value for word in (name, value)]
