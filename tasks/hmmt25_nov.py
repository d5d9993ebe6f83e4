"""HMMT November 2025: 30 problems with answers in LaTeX, as G-OPD evaluates them.

Not to be confused with February. One reference answer lacks a backslash; it is repaired.
"""

from harness.grading.maths.task import Gold, MathsTask, prompt
from harness.task import Dataset
from harness.types import Problem

# Malformed reference answers with their corrections, by id.
REPAIRS = {"20": "\\frac{\\sqrt{7} + 1}{2}"}  # written \frac{sqrt{7} + 1}{2}


class HMMT25Nov(MathsTask):
    name = "hmmt25_nov"
    version = "1"
    paper = "https://arxiv.org/abs/2602.12125"
    licence = "MIT (repository; problems: HMMT)"
    dataset = Dataset(
        local="hmmt25_nov/test.jsonl",
        repository="RUCBM/G-OPD",
        commit="37371a4c31ad7947746200d234161769191f4748",
        path="data/hmmt25_nov/test.jsonl",
        sha256="7bd6f3f15b689d36a458556fd7daef6f7257022be15f9cf42e2dff9ffb51ddd6",
        n=30,
    )

    repairs = REPAIRS

    def problems(self, rows):
        return [
            Problem(
                id=str(self.field(row, "id", i)),
                prompt=prompt(self.field(row, "problem", i).strip()),
                reference=Gold(
                    self.repairs.get(str(self.field(row, "id", i)), self.field(row, "answer", i)),
                    several="," in self.field(row, "answer", i),
                ),
            )
            for i, row in enumerate(rows)
        ]
