"""LiveCodeBench, code generation: problems of contests by the month in which they were held, with hidden tests.

The task's own file is the last one of the lite release, 175 problems of January to April 2025; ``v1`` to ``v5`` are the
files before it, and ``2502-2505`` the window that reports since DeepSeek-R1-0528 and Qwen3-2507 use. A window that
spans several files needs them joined into one at the file's place; its scores then bear that file's own hash.
"""

import dataclasses

from harness.grading.code import contest
from harness.task import Dataset, Protocol, Task
from harness.types import Completion, Decoding, Problem, Prompt

SYSTEM = (
    "You are an expert Python programmer. You will be given a question (problem specification) and will generate a "
    "correct Python program that matches the specification and passes all tests. You will NOT return anything except "
    "for the program."
)
STARTED = (
    "You will use the following starter code to write the solution to the problem and enclose your code within "
    "delimiters.\n```python\n{starter}\n```"
)
FREE = (
    "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly test on the sample "
    "inputs). Enclose your code within delimiters as follows.\n```python\n# YOUR CODE HERE\n```"
)
ASKED = "### Question:\n{question}\n\n### Format: {way}\n\n### Answer: (use the provided format with backticks)\n\n"
FILES = {  # of the lite release: sha256 and number of problems
    "test": ("2bd02b38beb48e8c46b5b9987095d999ff38cd8efc255ea5d58974317c48f63f", 400),
    "test2": ("095df7c5daf15f882c51a9deb84085cff1e073495a5dbcf95015a564d485f3a3", 111),
    "test3": ("28ed26cc83363ce3f1fe2d5fad9f8393077beb1907b167a31bd3b32f80801b79", 101),
    "test4": ("d711138ddaebfcf5f8ec6a4283ee677298c0f5c5d374a235af92aaf0584510da", 101),
    "test5": ("7f77571c2a6df0c2a72a3277650309f67e01e0008e18117e624633df53f81214", 167),
    "test6": ("bb4c364f71921c4495a6ad15abe1a927350b720009f4933e2e71f8af0f6fd1f5", 175),
}


def lite(name):
    """A file of the lite release."""
    sha256, n = FILES[name]
    return Dataset(
        local=f"livecodebench/{name}.jsonl",
        repository="hf:datasets/livecodebench/code_generation_lite",
        commit="0fe84c3912ea0c4d4a78037083943e8f0c4dd505",
        path=f"{name}.jsonl",
        sha256=sha256,
        n=n,
    )


def version(number):
    name = "test" if number == 1 else f"test{number}"
    return Protocol(f"the problems that release {number} of LiveCodeBench added", {"dataset": lite(name)})


class LiveCodeBench(Task):
    """pass@1 on the hidden tests of contest problems, asked and graded as LiveCodeBench does."""

    name, version, family, metric = "livecodebench", "1", "code", "pass@1"
    paper = "https://arxiv.org/abs/2403.07974"
    licence = "MIT (code); problems (c) LeetCode, AtCoder, Codeforces"
    grader = "LiveCodeBench's tests and comparison, run in the sandbox"
    runs_programs = extracts = grades_aside = True
    extractor = "the program between the last two code fences"
    equivalence = "every test passes: lines equal as text or decimals, or the returned value equals"
    decoding = Decoding(temperature=0.2, top_p=0.95, max_new_tokens=2000, samples=10)
    dataset = lite("test6")
    window = ("", "9999")  # first and last day of the contests, as text
    protocols = {f"v{number}": version(number) for number in range(1, 6)} | {
        "2502-2505": Protocol("contests from February 2025 on, in release 6", {"window": ("2025-02-01", "2025-05-31")})
    }

    def problems(self, rows):
        problems = []
        for number, row in enumerate(rows, 1):
            problem = contest.read_row(row, f"{self.data.source}: row {number}")
            if self.window[0] <= row["contest_date"][:10] <= self.window[1]:
                starter = row.get("starter_code") or ""
                way = STARTED.format(starter=starter) if starter else FREE
                user = ASKED.format(question=row["question_content"], way=way)
                problems.append(Problem(problem.id, Prompt(user, f"{SYSTEM}\n\n{user}", system=SYSTEM), problem))
        return problems

    def grade(self, problem, text):
        return contest.grade([problem.reference], [contest.program_of(text)])[0]

    def grade_all(self, completions):
        by_id = {problem.id: problem.reference for problem in self.items}
        programs = [contest.program_of(c.text) for c in completions]
        return self.grade_programs(completions, programs, by_id)

    def grade_programs(self, completions: list[Completion], programs, by_id=None):
        """Verdicts on whole programs, run without extraction."""
        known = by_id or {problem.id: problem.reference for problem in self.items}
        verdicts = contest.grade([known[c.problem_id] for c in completions], programs)
        return [dataclasses.replace(v, sample=c.sample) for v, c in zip(verdicts, completions, strict=True)]

    def gold_completion(self, problem):
        """A published program that passed, in a fence; None if there is none on this machine."""
        program = contest.passing_program(problem.id)
        return None if program is None else f"```python\n{program}\n```"

    def measures(self, graded):
        return {"sandbox": contest.walls()} | super().measures(graded)

    def grader_identity(self):
        return super().grader_identity() | {"cpu_limits": {"test_s": contest.TEST_S, "total_s": contest.TOTAL_S}}
