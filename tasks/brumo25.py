"""BRUMO 2025, Brown University Math Olympiad: 30 problems with answers in LaTeX, as "Revisiting OPD" evaluates them.

The pinned file is a table in Parquet; the same rows as JSON lines are read from ``HARNESS_DATA``. Problem 23 has four
values in any order.
"""

from harness.grading.maths.task import Gold, MathsTask, prompt
from harness.task import Dataset
from harness.types import Problem


class BRUMO25(MathsTask):
    name = "brumo25"
    version = "1"
    paper = "https://arxiv.org/abs/2603.25562"
    licence = "not stated (problems: BRUMO)"
    dataset = Dataset(
        local="brumo25/test.jsonl",
        repository="thunlp/OPD",
        commit="0a443955152fcd76dd08570ee3a43d50e307c5d1",
        path="scripts/val/data/BRUMO25/test.parquet",
        sha256="6b592e71f6652b5dfb069cbdba99222c7a55140b025d862edf1f948e2cfcfa0d",
        n=30,
    )

    def problems(self, rows):
        return [
            Problem(
                id=str(self.field(row, "id", i)),
                prompt=prompt(self.field(row, "problem", i).strip()),
                reference=Gold(self.field(row, "answer", i), several="," in self.field(row, "answer", i)),
            )
            for i, row in enumerate(rows)
        ]
