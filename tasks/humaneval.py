"""HumanEval: 164 functions to write from signature and docstring, tested on EvalPlus' ``base`` inputs.

These are the tests of OpenAI's file as EvalPlus runs them, against its own canonical solutions; papers report this
score with HumanEval+. OpenAI's own ``check`` functions differ on one or two problems.
"""

from harness.grading.code import openai_checks
from harness.grading.code.task import (
    EQUIVALENCE,
    EXTRACTOR,
    HUMANEVAL_PLUS,
    HUMANEVAL_STOP,
    CodeTask,
    evalplus_protocols,
)
from harness.task import Protocol


class HumanEval(CodeTask):
    """EvalPlus' base tests only; ``humanevalplus`` adds the plus tests."""

    name, version = "humaneval", "2"
    dataset = HUMANEVAL_PLUS
    plus = False
    completion_stop = HUMANEVAL_STOP
    extractor, equivalence = EXTRACTOR, EQUIVALENCE
    protocols = evalplus_protocols(HUMANEVAL_STOP) | {
        "humaneval-original": Protocol(
            "OpenAI's file, prompts and check functions (arXiv 2107.03374): 200 samples, pass@k without bias; "
            "0.2 is the temperature for pass@1 (0.8 for pass@100), 512 tokens are our choice",
            {"dataset": openai_checks.HUMANEVAL, "decoding": openai_checks.DECODING, "ask": openai_checks.ask},
            openai_checks.OpenAIChecks,
        )
    }
    paper = "https://arxiv.org/abs/2107.03374"
    licence = "MIT (HumanEval), Apache-2.0 (HumanEval+)"
