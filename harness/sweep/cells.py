"""The cells of a grid: one (method, seed) each with all its tasks, as the arguments of a ``harness run``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.evaluation import measurement

if TYPE_CHECKING:
    from harness.request import Plan


@dataclass(frozen=True)
class SweepCell:
    """``arguments`` follow ``harness``; ``recorded`` has the existing run ids, ``missing`` the tasks left to run."""

    method: str
    seed: int
    arguments: tuple[str, ...]
    recorded: tuple[str, ...]
    missing: tuple[str, ...]

    @property
    def label(self) -> str:
        return f"{self.method} seed {self.seed}"

    @property
    def file(self) -> str:
        """The name of its log file, without suffix."""
        return "".join(c if c.isalnum() or c in "@-." else "_" for c in f"{self.method}-s{self.seed}")[-80:]


def cells(plan: Plan) -> list[SweepCell]:
    """The cells of a plan, in its order."""
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
            tuple(_arguments(plan, method, seed)),
            tuple(run_id for _, run_id in tasks if run_id),
            tuple(task.title for task, run_id in tasks if not run_id),
        )
        for (method, seed), tasks in found.items()
    ]


def _arguments(plan: Plan, method: str, seed: int) -> list[str]:
    asked = plan.request
    arguments = ["run", "--json", "--method", method, "--seed", str(seed), "--recipe", asked.recipe]
    arguments += ["--results", str(asked.results), "--device", plan.device]
    arguments += [argument for task in asked.tasks for argument in ("--task", task)]
    arguments += [argument for setting in asked.settings for argument in ("--set", setting)]
    given = {"--student": asked.student, "--teacher": asked.teacher, "--judge": asked.judge}
    given["--protocol"] = asked.protocol
    return arguments + [argument for name, value in given.items() if value for argument in (name, value)]
