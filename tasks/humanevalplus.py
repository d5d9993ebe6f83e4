"""HumanEval+ v0.1.10: the 164 problems of HumanEval with about 750 inputs each."""

from harness.grading.code.task import (
    EQUIVALENCE,
    EXTRACTOR,
    HUMANEVAL_PLUS,
    HUMANEVAL_STOP,
    CodeTask,
    evalplus_protocols,
)


class HumanEvalPlus(CodeTask):
    """A program must pass EvalPlus' base tests and its plus tests."""

    name, version = "humanevalplus", "2"
    dataset = HUMANEVAL_PLUS
    plus = True
    completion_stop = HUMANEVAL_STOP
    extractor, equivalence = EXTRACTOR, EQUIVALENCE
    protocols = evalplus_protocols(HUMANEVAL_STOP)
    paper = "https://arxiv.org/abs/2305.01210"
    licence = "MIT (HumanEval), Apache-2.0 (HumanEval+)"
    note = (
        "HumanEval/45 cannot be passed by a program that computes in exact integers: its plus outputs are floats "
        "beyond 2^53, rounded, and an int has no tolerance (github.com/evalplus/evalplus/issues/308)"
    )
