"""``harness check --method``, ``--task`` and ``--judge``: runs the suite of :mod:`harness.testing` and reports it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness import data, options, registry, testing
from harness.evaluation.benchmarks import locate
from harness.grading.judges.open_judge import open_judge
from harness.plan import settings_of, variants_of
from harness.task import Task

ROWS = 5  # rows of a benchmark; every text of the suite is graded twice on each


@dataclass
class Conformed:
    """The result for one method, task or judge: a line per check, and the first violation of the contract, if any."""

    name: str
    checked: list[str] = field(default_factory=list)
    broken: str = ""

    @property
    def whole(self) -> bool:
        """Whether no check was skipped for lack of rows or a judge, and the contract holds."""
        return not self.broken and not any(line.startswith(testing.LEFT_OUT) for line in self.checked)

    def take(self, lines: Iterator[str]) -> Conformed:
        """Runs the checks up to the first violation; returns this object."""
        try:
            for line in lines:
                self.checked.append(line)
        except AssertionError as error:
            self.broken = str(error)
        return self


def methods(names: Sequence[str]) -> list[Conformed]:
    """Checks each method, with all its variants unless one is named. Raises BadInput for an unknown method."""
    found = []
    for name in names:
        cls = registry.find(registry.METHODS, registry.split(name)[0])
        variants: list[tuple[str, Mapping[str, Any]]] = [(name, settings_of(cls, name))]
        if not registry.split(name)[1]:
            variants += [(f"{name}@{variant}", settings) for variant, settings in variants_of(cls).items()]
        for label, settings in variants:
            found.append(Conformed(label).take(_method(cls, label, settings)))
            if found[-1].broken:
                break
    return found


def _method(cls: type, label: str, settings: Mapping[str, Any]) -> Iterator[str]:
    yield from testing.method_checks(cls, options.build(cls.Config, settings, label))


def task(name: str) -> Conformed:
    """Checks a task on its first rows, if available. Raises BadInput for an unknown task."""
    task_class, world = locate(name)
    rows, judge = _rows(task_class, world)
    return Conformed(name).take(testing.task_checks(task_class, rows, judge))


def judge(spec: str) -> Conformed:
    """Checks a judge, given as ``--judge`` takes it. Raises BadInput for an unknown one."""
    return Conformed(spec).take(testing.judge_checks(open_judge(spec)))


def _rows(found: type[Task], world: str) -> tuple[Sequence[Mapping[str, Any]] | None, Any]:
    if world != "real":
        from harness.grading.judges.generated import ProgrammaticJudge
        from harness.micro import world as micro

        return micro.dataset(found.name, world).rows[:ROWS], ProgrammaticJudge() if found.needs_judge else None
    rows = data.read(found.dataset).rows if data.at_hand(found.dataset) else None
    # The rows that a task takes may stand anywhere.
    return (rows if found.takes_some or rows is None else rows[:ROWS]), None


def text(found: Conformed) -> str:
    """The report: a line per check, then the violation or "conforms"."""
    marks = ["--" if line.startswith(testing.LEFT_OUT) else "ok" for line in found.checked]
    lines = [found.name, *(f"  {mark}  {line}" for mark, line in zip(marks, found.checked, strict=True))]
    return "\n".join([*lines, f"  broken  {found.broken}" if found.broken else "  conforms"])
