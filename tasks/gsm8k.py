"""GSM8K, the test set: 1,319 word problems. The reference answer follows ``####``.

A completion may give its answer in a box or after ``####``. The rows have no id: a problem's id is its position in the
file, from 0.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from harness.errors import BadInput
from harness.grading.maths import readings
from harness.grading.maths.task import Gold, MathsTask, prompt
from harness.task import Dataset, Protocol
from harness.types import Problem


class GSM8K(MathsTask):
    name = "gsm8k"
    version = "3"
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
    reading = readings.HASHES
    protocols: ClassVar[Mapping[str, Protocol]] = {
        **MathsTask.protocols,
        "lm-eval-strict-match": Protocol(
            "our prompt, read as lm-eval's gsm8k reads it by strict-match (version 3)",
            {"reading": readings.STRICT_MATCH},
        ),
        "lm-eval-flexible-extract": Protocol(
            "our prompt, read as lm-eval's gsm8k and gsm8k_cot read it by flexible-extract (version 3)",
            {"reading": readings.FLEXIBLE_EXTRACT},
        ),
        "lm-eval-cot-strict-match": Protocol(
            "our prompt, read as lm-eval's gsm8k_cot reads it by strict-match (version 3): 'The answer is 18.'",
            {"reading": readings.COT_STRICT_MATCH},
        ),
        "few-shot-forms": Protocol(
            "our prompt, read in the forms that published few-shot examples teach: 'The answer is 18.' "
            "(arXiv 2201.11903), 'The final answer is 18', 'A: 18'; the last one counts",
            {"reading": readings.FEW_SHOT},
        ),
    }

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
