"""HumanEval: 164 functions from signature and docstring, tested on EvalPlus' ``base`` inputs.

These are the tests of OpenAI's file as EvalPlus runs them, against its own canonical solutions; this is what
papers table beside HumanEval+. OpenAI's own ``check`` functions differ on a problem or two.
"""

from harness.grading.code_task import HUMANEVAL_PLUS, HUMANEVAL_STOP, CodeTask


class HumanEval(CodeTask):
    """EvalPlus' base tests only; ``humanevalplus`` adds the others."""

    name, version = "humaneval", "1"
    dataset = HUMANEVAL_PLUS
    plus = False
    completion_stop = HUMANEVAL_STOP
    paper = "https://arxiv.org/abs/2107.03374"
    licence = "MIT (HumanEval), Apache-2.0 (HumanEval+)"
