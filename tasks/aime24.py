"""AIME 2024, I and II: 30 problems with integer answers from 000 to 999, as Qwen2.5-Math evaluates them.

Seven answers have leading zeros: 033 equals 33.
"""

from harness.grading.maths.task import Gold, MathsTask, prompt
from harness.task import Dataset
from harness.types import Problem


class AIME24(MathsTask):
    name = "aime24"
    version = "3"
    paper = "https://arxiv.org/abs/2409.12122"
    licence = "MIT (problems: MAA)"
    dataset = Dataset(
        local="aime24/test.jsonl",
        repository="QwenLM/Qwen2.5-Math",
        commit="a45202bd16f1ec06f433442dc1152d0074773465",
        path="evaluation/data/aime24/test.jsonl",
        sha256="af2b8bd2aa911b6333ad0df32f3ca05c7ae8ed10f1731f4372c8ae26990bf7ac",
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
