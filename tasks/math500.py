"""MATH-500: the 500 test problems of MATH that PRM800K held out, in simpleRL-reason's copy."""

from harness.grading.maths.task import Gold, MathsTask, prompt
from harness.task import Dataset
from harness.types import Problem


class MATH500(MathsTask):
    name = "math500"
    version = "3"
    paper = "https://arxiv.org/abs/2305.20050"
    licence = "MIT"
    dataset = Dataset(
        local="math500/test.jsonl",
        repository="hkust-nlp/simpleRL-reason",
        commit="cf1c7858bfc145a27aa733e75d930d34f0d318a6",
        path="examples/simplelr_math_eval/data/math500/test.jsonl",
        sha256="35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132",
        n=500,
    )

    def problems(self, rows):
        return [
            Problem(
                id=str(self.field(row, "unique_id", i)),
                prompt=prompt(self.field(row, "problem", i)),
                reference=Gold(str(self.field(row, "answer", i))),
            )
            for i, row in enumerate(rows)
        ]
