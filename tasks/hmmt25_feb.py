"""HMMT February 2025: 30 problems with answers in LaTeX, as G-OPD evaluates them.

Problem 10 has two values in any order.
"""

from harness.grading.maths.task import Gold, MathsTask, prompt
from harness.task import Dataset
from harness.types import Problem


class HMMT25Feb(MathsTask):
    name = "hmmt25_feb"
    version = "1"
    paper = "https://arxiv.org/abs/2602.12125"
    licence = "MIT (repository; problems: HMMT)"
    dataset = Dataset(
        local="hmmt25_feb/test.jsonl",
        repository="RUCBM/G-OPD",
        commit="37371a4c31ad7947746200d234161769191f4748",
        path="data/hmmt25_feb/test.jsonl",
        sha256="86825dc3a44cf9fd5fd62c5d6a4ab4afeb8feba1ae47ded20eea5663ec733524",
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
