"""The base class of the code tasks: EvalPlus' prompts, and the grading of completions."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from statistics import fmean
from typing import Any, ClassVar

from harness.grading.code.differential import FACTOR, FLOOR_S, TOTAL_S, grade
from harness.grading.code.problem import CodeProblem
from harness.grading.code.text import as_evalplus_reads, program_of
from harness.grading.code.text import read as read_text
from harness.grading.thinking import answer_of
from harness.sandbox import tier
from harness.task import Dataset, Protocol, Task
from harness.types import Completion, Decoding, Problem, Prompt, Verdict

INSTRUCTION = (
    "Please provide a self-contained Python script that solves the following problem in a markdown code block:"
)
RESPONSE = (
    "Below is a Python script with a self-contained function that solves the problem and passes corresponding tests:"
)
# Stop strings of both protocols of EvalPlus. Those that end only the continuation of a stub
# (``CodeTask.completion_stop``) would cut a chat model's program at its first function; they are applied when the
# program is extracted.
STOP = ("<|endoftext|>", "<|endofmask|>", "</s>", "\nif __name__", "\ndef main(", "\nprint(", "\n```\n")

HUMANEVAL_STOP = ("\ndef ", "\nclass ", "\nimport ", "\nfrom ", "\nassert ")
MBPP_STOP = ('\n"""', "\nassert")

HUMANEVAL_PLUS = Dataset(
    local="humanevalplus/HumanEvalPlus.jsonl.gz",  # v0.1.10
    repository="evalplus/humanevalplus_release",
    commit="200defce9e3429d28ca215b6dd061c0f7f31c18b",
    path="HumanEvalPlus.jsonl.gz",
    sha256="272720b90ac375502c8ed23cd791c2a93dfb22a911641a494da74a426c09f101",
    n=164,
)
MBPP_PLUS = Dataset(
    local="mbppplus/MbppPlus.jsonl.gz",  # v0.2.0
    repository="evalplus/mbppplus_release",
    commit="dadf43da556a00f7bacd71cb154f2932757d9144",
    path="MbppPlus.jsonl.gz",
    sha256="af43697e8791c4c149bdfd6b489d8b5412507551ac20e28a439f650b8225db63",
    n=378,
)


class CodeTask(Task):
    """pass@1 by differential testing on rows in EvalPlus' format; ``plus`` adds the plus inputs to the base ones."""

    runs_programs = extracts = True
    known_wrong, samples_as = "code", "evalplus"
    family, metric, grader = "code", "pass@1", "differential testing on EvalPlus' inputs and oracles"
    decoding = Decoding(max_new_tokens=768, stop=STOP)
    grades_aside = True  # in the sandbox
    as_evalplus: ClassVar[bool] = False  # extract programs exactly as EvalPlus does, without repairs
    plus: ClassVar[bool]
    completion_stop: ClassVar[tuple[str, ...]]

    def problems(self, rows: Sequence[Mapping[str, Any]]) -> list[Problem]:
        problems = [CodeProblem.of(row, number, self.plus) for number, row in enumerate(rows, 1)]
        return [Problem(problem.task_id, prompt(problem), problem) for problem in problems]

    def grade(self, problem: Problem, text: str) -> Verdict:
        return self.grade_all([Completion(problem.id, 0, text, 0, "stop")])[0]

    def grade_all(self, completions: Sequence[Completion]) -> list[Verdict]:
        by_id = {problem.id: problem.reference for problem in self.items}
        read = as_evalplus_reads if self.as_evalplus else program_of
        programs = [read(by_id[c.problem_id], self.graded_part(c.text), self.completion_stop) for c in completions]
        return self.grade_programs(completions, programs)

    def graded_part(self, text: str) -> str:
        """The part of a completion from which the program is extracted."""
        return text

    def grade_programs(self, completions: Sequence[Completion], programs: Sequence[str | None]) -> list[Verdict]:
        """Verdicts on whole programs, run without extraction: EvalPlus' samples with a ``solution``."""
        by_id = {problem.id: problem.reference for problem in self.items}
        verdicts = grade([by_id[completion.problem_id] for completion in completions], programs)
        return [
            dataclasses.replace(verdict, sample=completion.sample)
            for verdict, completion in zip(verdicts, completions, strict=True)
        ]

    def measures(self, graded: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The sandbox tier in which the programs ran, and avg@k and pass@k if there are several samples."""
        return {"sandbox": str(tier())} | super().measures(graded)

    def read_figures(self, graded: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Counts the repairs made in these texts, and adds the score of EvalPlus' extraction if it differs.

        Only texts from which EvalPlus extracts another program are run a second time. Empty if nothing was repaired.
        """
        if self.as_evalplus:
            return {}
        by_id = {problem.id: problem.reference for problem in self.items}
        repairs: Counter[str] = Counter()
        other: list[tuple[int, str | None]] = []
        touched = 0
        for i, row in enumerate(graded):
            problem, text = by_id[row["problem_id"]], self.graded_part(row["text"])
            # Extract the program both ways; remember EvalPlus' where it differs.
            ours = read_text(problem, text, self.completion_stop)
            theirs = as_evalplus_reads(problem, text, self.completion_stop)
            repairs.update(ours.repairs)
            touched += bool(ours.repairs)
            if ours.program != theirs:
                other.append((i, theirs))
        counts: dict[str, Any] = (
            {"texts_repaired": touched, "repairs": dict(sorted(repairs.items()))} if touched else {}
        )
        # Grade EvalPlus' programs where they differ, then average over samples, then over problems.
        again = [Completion(graded[i]["problem_id"], graded[i]["sample"], "", 0, "stop") for i, _ in other]
        verdicts = self.grade_programs(again, [program for _, program in other]) if other else []
        moved = {i: v.score for (i, _), v in zip(other, verdicts, strict=True) if v.score != graded[i]["score"]}
        if not moved:
            return counts
        scores: dict[str, list[float]] = {}
        for i, row in enumerate(graded):
            scores.setdefault(row["problem_id"], []).append(moved.get(i, row["score"]))
        figure = fmean(fmean(each) for each in scores.values())
        return counts | {"evalplus_reading": {"score": figure, "verdicts_that_differ": len(moved)}}

    def grader_identity(self) -> dict[str, Any]:
        limits = {"floor_s": FLOOR_S, "factor": FACTOR, "total_s": TOTAL_S}
        reading = "evalplus's" if self.as_evalplus else "repaired before evalplus's sanitiser"
        return super().grader_identity() | {"evalplus": version("evalplus"), "cpu_limits": limits, "reading": reading}


def prompt(problem: CodeProblem) -> Prompt:
    """EvalPlus' chat prompt, with a code fence opened for the model; the stub for a model without chat template."""
    return Prompt(
        user=f"{INSTRUCTION}\n```\n{problem.prompt.strip()}\n```\n",
        prefill=f"{RESPONSE}\n```python\n",
        plain=problem.stub,
    )


# The published protocols that the code tasks share: how a model is prompted and how its program is extracted.

EXTRACTOR = (
    "a whole program, or the stub with its continuation, through EvalPlus' sanitiser, after thoughts, end markers, odd "
    "spaces, fenced bodies and a lost first indentation are repaired. EvalPlus repairs none of these: where a verdict "
    "differs, the score by its own reading is shown too (evalplus_reading)"
)
AS_EVALPLUS = {
    "as_evalplus": True,
    "thoughts_are_graded": True,
    "extractor": "a whole program, or the stub with its continuation, through EvalPlus' sanitiser, by the letter",
}
EQUIVALENCE = "every output equals the canonical solution's, by EvalPlus' oracles and tolerances"


def evalplus_protocols(completion_stop: Sequence[str]) -> dict[str, Protocol]:
    """The protocols by name. ``completion_stop`` ends a continuation of the stub, besides the strings in STOP."""
    return {
        "evalplus-0.2.0": Protocol(
            "EvalPlus on its data release 0.2.0 of MBPP+ (0.1.10 of HumanEval+): the fence opened for chat models, "
            "the stub continued by others; greedy, 768 tokens",
            {"decoding": Decoding(max_new_tokens=768, stop=STOP)} | AS_EVALPLUS,
        ),
        "evalplus-0.2.0-completion": Protocol(
            "EvalPlus' completion protocol for any model: the stub is continued as plain text",
            {"ask": _continue, "decoding": Decoding(max_new_tokens=768, stop=(*STOP, *completion_stop))} | AS_EVALPLUS,
        ),
        "distillm2": Protocol(
            "DistiLLM-2's script (arXiv 2503.07067): the bare stub as user turn, sampled",
            {"ask": _bare, "decoding": Decoding(temperature=0.8, top_p=0.95, max_new_tokens=1024)} | AS_EVALPLUS,
        ),
        "last-fence": Protocol(
            "for models that reason first: nothing opened for the model, its last fenced block is the program",
            {"ask": _unopened, "decoding": Decoding(max_new_tokens=8192)},
            LastFence,
        ),
    }


def _continue(task: Any, problem: Problem) -> Prompt:
    return dataclasses.replace(problem.prompt, chat=False)


def _bare(task: Any, problem: Problem) -> Prompt:
    return Prompt(user=problem.prompt.plain, plain=problem.prompt.plain)


def _unopened(task: Any, problem: Problem) -> Prompt:
    return dataclasses.replace(problem.prompt, prefill="")


class LastFence:
    """Grades the last closed code fence of a completion; without one there is no program."""

    extractor = "the last closed code fence, through EvalPlus' sanitiser"

    def graded_part(self, text: str) -> str:
        return last_fence(answer_of(text))

    def grader_identity(self) -> dict[str, Any]:
        return super().grader_identity() | {"extractor": "last fence"}


def last_fence(text: str) -> str:
    """The last closed code block of ``text`` including its fences, "" if there is none."""
    lines = text.split("\n")
    fences = [i for i, line in enumerate(lines) if line.lstrip().startswith("```")]
    if len(fences) < 2:
        return ""
    start, end = fences[(len(fences) // 2 - 1) * 2 :][:2]
    return "\n".join(lines[start : end + 1])
