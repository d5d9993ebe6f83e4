"""OlympiadBench, English open-ended text-only maths (OE_TO_maths_en_COMP): the 675 rows of Qwen2.5-Math.

The reference answer is the first element of ``final_answer`` without dollar signs. Order, brackets, units and the
one tolerance in the file apply.
"""

from harness.errors import BadInput
from harness.grading.maths.task import Gold, MathsTask, prompt
from harness.task import Dataset
from harness.types import Problem

# Malformed reference answers with their corrections, by id.
REPAIRS = {
    "1965": "$f(x)=a x+b$",  # the conditions on a and b follow in words
    "1970": "$(-\\infty, 0) \\cup\\{1\\}$",  # a full stop after the closing dollar sign
    "2045": "$(0,4]$",  # written t(0,4]: the sign "in" was lost
    "2349": "$221,8$",  # written $221,$8$
}


class OlympiadBench(MathsTask):
    name = "olympiadbench"
    version = "3"
    paper = "https://arxiv.org/abs/2402.14008"
    licence = "MIT"
    repairs = REPAIRS
    dataset = Dataset(
        local="olympiadbench/test.jsonl",
        repository="QwenLM/Qwen2.5-Math",
        commit="a45202bd16f1ec06f433442dc1152d0074773465",
        path="evaluation/data/olympiadbench/test.jsonl",
        sha256="bb8c1e38a16ea9eacb77530315a674d883f267fbff79183effc53681b4fcc416",
        n=675,
    )

    def problems(self, rows):
        return [self._problem(row, i) for i, row in enumerate(rows)]

    def _problem(self, row, index):
        answers = self.field(row, "final_answer", index)
        if not isinstance(answers, list) or not answers or not isinstance(answers[0], str):
            raise BadInput(f"{self.data.source}: row {index + 1}: 'final_answer' is not a list of texts")
        number = str(self.field(row, "id", index))
        try:
            tolerance = float(row["error"]) if row.get("error") else None
        except (TypeError, ValueError):
            raise BadInput(f"{self.data.source}: row {index + 1}: 'error' is not a number") from None
        return Problem(
            id=number,
            prompt=prompt(self.field(row, "question", index)),
            reference=Gold(
                text=self.repairs.get(number, answers[0]).replace("$", "").strip(),
                several=bool(row.get("is_multiple_answer")),
                interval=row.get("answer_type") == "Interval",
                unit=row.get("unit") or "",
                tolerance=tolerance,
            ),
        )
