"""HumanEval+ v0.1.10: the 164 problems of HumanEval with about 750 inputs each."""

from harness.grading.code.evalplus_protocols import EQUIVALENCE, EXTRACTOR, evalplus_protocols
from harness.grading.code.task import HUMANEVAL_PLUS, HUMANEVAL_STOP, CodeTask


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
