"""GSM8K, the test set: 1,319 word problems. The gold stands after ``####``; so may an answer, besides a box.

The rows carry no id: a problem's id is its place in the file, from 0.
"""

import dataclasses

from harness.errors import BadInput
from harness.grading.maths.task import Gold, MathsTask, prompt
from harness.task import Dataset
from harness.types import Problem


class GSM8K(MathsTask):
    name = "gsm8k"
    version = "2"
    paper = "https://arxiv.org/abs/2110.14168"
    licence = "MIT"
    dataset = Dataset(
        local="gsm8k/test.jsonl",
        repository="openai/grade-school-math",
        commit="3101c7d5072418e28b9008a6636bde82a006892c",
        path="grade_school_math/data/test.jsonl",
        sha256="3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
        n=1319,
    )
    decoding = dataclasses.replace(MathsTask.decoding, max_new_tokens=1024)
    hashes = True
    extractor = "the last \\boxed{}, or what follows the last #### if that comes later"

    def problems(self, rows):
        return [
            Problem(
                id=str(i),
                prompt=prompt(self.field(row, "question", i)),
                reference=Gold(self._after_hashes(self.field(row, "answer", i), i)),
            )
            for i, row in enumerate(rows)
        ]

    def _after_hashes(self, solution: str, index: int) -> str:
        _, mark, number = solution.rpartition("####")
        if not mark:
            raise BadInput(f"{self.data.source}: row {index + 1} has no '#### answer' at the end of 'answer'")
        return number.strip().replace(",", "")
