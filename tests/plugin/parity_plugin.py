"""A third party's task: is a number even?"""

from harness.errors import BadInput
from harness.task import Dataset, Task
from harness.types import Decoding, Problem, Prompt, Verdict


class Parity(Task):
    """Even or odd, answered in one word."""

    name, version, family, metric = "parity", "1", "instruction", "accuracy"
    dataset = Dataset(
        local="parity/test.jsonl",
        repository="example/parity",
        commit="0" * 40,
        path="test.jsonl",
        sha256="0" * 64,
        n=4,
    )
    decoding = Decoding(max_new_tokens=4)

    def problems(self, rows):
        found = []
        for i, row in enumerate(rows):
            if not isinstance(row.get("number"), int):
                raise BadInput(f"parity: row {i} has no whole number under 'number'")
            asked = f"Is {row['number']} even or odd?"
            found.append(Problem(str(i), Prompt(user=asked, plain=asked + "\n"), ("even", "odd")[row["number"] % 2]))
        return found

    def grade(self, problem, text):
        right = text.strip().lower() == problem.reference
        return Verdict(problem.id, 0, float(right), f"expected {problem.reference}", text.strip()[:20] or None)
