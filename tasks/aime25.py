"""AIME 2025, I and II: 30 problems with integer answers from 0 to 999."""

from harness.grading.maths import Gold, MathsTask, prompt
from harness.task import Dataset
from harness.types import Problem


class AIME25(MathsTask):
    name = "aime25"
    version = "1"
    paper = "https://artofproblemsolving.com/wiki/index.php/2025_AIME_I"
    licence = "MIT (problems: MAA)"
    dataset = Dataset(
        local="aime25/test.jsonl",
        repository="zhshgmail/AReaL",
        commit="000dc748baa8915d056bdb2b17024c3b2a85f2f7",
        path="evaluation/data/aime25/test.jsonl",
        sha256="",
        n=30,
    )

    def problems(self, rows):
        return [
            Problem(
                id=str(self.field(row, "id", i)),
                prompt=prompt(self.field(row, "problem", i)),
                reference=Gold(str(self.field(row, "answer", i))),
            )
            for i, row in enumerate(rows)
        ]
