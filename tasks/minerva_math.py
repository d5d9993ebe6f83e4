"""Minerva Math: 272 problems of MIT OpenCourseWare, as Qwen2.5-Math evaluates them (arXiv 2206.14858, 2409.12122).

The reference answer is the one box of the reference solution: decimals, powers of ten, expressions, equations. They are
compared exactly here; the protocol ``qwen25-math`` compares within a relative 1e-4, as most published scores do.
"""

from dataclasses import replace

from harness.errors import BadInput
from harness.grading.maths.extract import last_box
from harness.grading.maths.readings import QWEN25_WITH_UNITS
from harness.grading.maths.task import Gold, MathsTask, prompt
from harness.task import Dataset
from harness.types import Problem

# Reference answers that are no LaTeX, with their corrections, by idx.
REPAIRS = {
    "5": "\\arcsin(10/13)",  # np.arcsin(10/13)
    "38": "-\\frac{1}{3}",  # -1./3
    "49": "-\\frac{3}{2}",  # -3./2
    "72": "x_{0} \\cos (\\omega t)+\\dot{x}_{0} \\sin (\\omega t) / \\omega",  # with "$ $" in the middle
}


class MinervaMath(MathsTask):
    name = "minerva_math"
    version = "1"
    paper = "https://arxiv.org/abs/2206.14858"
    licence = "MIT (repository; course texts: MIT OpenCourseWare, CC BY-NC-SA)"
    dataset = Dataset(
        local="minerva_math/test.jsonl",
        repository="QwenLM/Qwen2.5-Math",
        commit="a45202bd16f1ec06f433442dc1152d0074773465",
        path="evaluation/data/minerva_math/test.jsonl",
        sha256="0e656b430d3a0a1dab6aa853f453ba3805e28e2cabe4fc72486a897cc09d8ba2",
        n=272,
    )

    repairs = REPAIRS
    # Qwen2.5-Math's grader keeps the units of this benchmark, and of no other that is here.
    published = MathsTask.protocols["qwen25-math"]
    protocols = MathsTask.protocols | {"qwen25-math": replace(published, changes={"reading": QWEN25_WITH_UNITS})}

    def problems(self, rows):
        return [self._problem(row, i) for i, row in enumerate(rows)]

    def _problem(self, row, index):
        number = str(self.field(row, "idx", index))
        boxed = last_box(self.field(row, "solution", index))
        if boxed is None:
            raise BadInput(f"{self.data.source}: row {index + 1} has no box in its 'solution'; {self.name} needs it")
        return Problem(
            id=number,
            prompt=prompt(self.field(row, "problem", index)),
            reference=Gold(self.repairs.get(number, boxed).strip()),
        )
