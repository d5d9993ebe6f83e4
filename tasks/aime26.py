"""AIME 2026, I and II: 30 problems with integer answers from 0 to 999, as LLMEval evaluates them.

The file has no ids: they are the positions, 0 to 14 for AIME I and 15 to 29 for AIME II. Its questions end with an
instruction, which is left out because the prompt has its own.
"""

from harness.grading.maths.task import SYSTEM, Gold, MathsTask, prompt
from harness.task import Dataset
from harness.types import Problem


class AIME26(MathsTask):
    name = "aime26"
    version = "1"
    paper = "https://artofproblemsolving.com/wiki/index.php/2026_AIME_I"
    licence = "Apache-2.0 (repository; problems: MAA)"
    dataset = Dataset(
        local="aime26/aime26.jsonl",
        repository="jianzhnie/LLMEval",
        commit="66572ad3f66078c376d777866f6535d3f334b0c8",
        path="data/aime26.jsonl",
        sha256="31fa88574e75103bcfee15811fec860aabd727af5cfe9327756305dbed8f5d70",
        n=30,
    )

    def problems(self, rows):
        return [
            Problem(
                id=str(i),
                prompt=prompt(self.field(row, "prompt", i).removesuffix(f"\n{SYSTEM}")),
                reference=Gold(str(self.field(row, "answer", i))),
            )
            for i, row in enumerate(rows)
        ]
