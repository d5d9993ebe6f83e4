"""The published protocols that the code tasks share: how a model is prompted and how its program is extracted."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from harness.grading.code.task import STOP
from harness.grading.thinking import answer_of
from harness.task import Protocol
from harness.types import Decoding, Problem, Prompt

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
