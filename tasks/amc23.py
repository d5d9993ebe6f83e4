"""AMC 2023: the 40 problems of AMC 12A and 12B with an integer answer, as Qwen2.5-Math evaluates them.

The file has its answers as floats (27.0), which never equal an integer as strings.
"""

from harness.grading.maths.task import Gold, MathsTask, prompt
from harness.task import Dataset
from harness.types import Problem


class AMC23(MathsTask):
    name = "amc23"
    version = "2"
    paper = "https://arxiv.org/abs/2409.12122"
    licence = "MIT (problems: MAA)"
    dataset = Dataset(
        local="amc23/test.jsonl",
        repository="QwenLM/Qwen2.5-Math",
        commit="a45202bd16f1ec06f433442dc1152d0074773465",
        path="evaluation/data/amc23/test.jsonl",
        sha256="43707e1ca784602d8479de24ee8ce36609dbebc46dd152b0b12a46611aa898a4",
        n=40,
    )

    def problems(self, rows):
        return [
            Problem(
                id=str(self.field(row, "id", i)),
                prompt=prompt(self.field(row, "problem", i)),
                reference=Gold(_number(self.field(row, "answer", i))),
            )
            for i, row in enumerate(rows)
        ]


def _number(answer: float | int | str) -> str:
    return str(int(answer)) if isinstance(answer, float) and answer.is_integer() else str(answer)
