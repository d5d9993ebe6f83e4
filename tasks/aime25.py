"""AIME 2025, I and II: 30 problems with integer answers from 0 to 999, as AReaL evaluates them.

In three problems of the file, JSON read the backslash of a command as an escape: ``\\frac`` became a form feed and
``rac``. The command is restored.
"""

from harness.grading.maths.task import Gold, MathsTask, prompt
from harness.task import Dataset
from harness.types import Problem


class AIME25(MathsTask):
    name = "aime25"
    version = "3"
    paper = "https://arxiv.org/abs/2505.24298"
    licence = "Apache-2.0 (problems: MAA)"
    dataset = Dataset(
        local="aime25/test.jsonl",
        repository="zhshgmail/AReaL",
        commit="000dc748baa8915d056bdb2b17024c3b2a85f2f7",
        path="evaluation/data/aime25/test.jsonl",
        sha256="b4e273c02d3e7fe1b74b59eae768fc8230bfb0f79539890cb56f4361caac0331",
        n=30,
    )

    def problems(self, rows):
        return [
            Problem(
                id=str(self.field(row, "id", i)),
                prompt=prompt(self.field(row, "problem", i).replace("\f", "\\f").replace("\t", "\\t")),
                reference=Gold(str(self.field(row, "answer", i))),
            )
            for i, row in enumerate(rows)
        ]
