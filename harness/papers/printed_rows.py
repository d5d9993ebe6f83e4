"""Cells of a printed table as runs: the method and task that would give each, and what is missing for it."""

from __future__ import annotations

from dataclasses import dataclass

from harness import registry
from harness.errors import BadInput, unknown
from harness.papers.spec import ModelPair
from harness.records import printed
from harness.records.printed import PrintedCell
from harness.records.reported import Paper


@dataclass(frozen=True)
class PrintedRow:
    """A printed cell that a pair reproduces, under the harness' names."""

    cell: str  # pair/row/benchmark, as --only takes it
    pair: ModelPair
    method: str
    task: str
    theirs: PrintedCell

    def lacks(self) -> str:
        """Why it cannot be run; empty where method and task are available."""
        for kind, what, name in (
            (registry.METHODS, "method", self.method.partition("@")[0]),
            (registry.TASKS, "task", self.task.removesuffix("@real")),
        ):
            if name not in {entry.name for entry in registry.entries(kind)}:
                return f"there is no {what} {name} here"
        return ""


def of(pair: ModelPair, paper: Paper) -> list[PrintedRow]:
    """The rows of a pair, in the order of its file. Raises BadInput for a row or benchmark that the table lacks."""
    if (wanted := pair.printed) is None:
        return []
    table = {(c.method, c.benchmark): c for c in printed.of(paper)
             if (c.locator, c.student, c.setting) == (wanted.locator, wanted.student, wanted.setting)
             and wanted.teacher in ("", c.teacher)}  # fmt: skip
    if not table:
        pupil = f"{wanted.student!r}" + (f" of {wanted.teacher!r}" if wanted.teacher else "")
        raise BadInput(f"pair {pair.name}: paper {paper['id']} prints no {wanted.locator!r} for {pupil}")
    for names, known, what in (
        (wanted.rows, {method for method, _ in table}, "row"),
        (wanted.benchmarks, {benchmark for _, benchmark in table}, "benchmark"),
    ):
        for name in names:
            if name not in known:
                raise unknown(f"{what} of {wanted.locator} for pair {pair.name}", name, known)
    return [
        PrintedRow(f"{pair.name}/{row}/{benchmark}", pair, method, task, table[row, benchmark])
        for row, method in wanted.rows.items()
        for benchmark, task in wanted.benchmarks.items()
        if (row, benchmark) in table
    ]
