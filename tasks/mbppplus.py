"""MBPP+ v0.2.0: the 378 problems of EvalPlus' MBPP with about 105 inputs each."""

from harness.grading.code.evalplus_protocols import EQUIVALENCE, EXTRACTOR, evalplus_protocols
from harness.grading.code.task import MBPP_PLUS, MBPP_STOP, CodeTask


class MBPPPlus(CodeTask):
    """A program must pass EvalPlus' base tests and its plus tests."""

    name, version = "mbppplus", "2"
    dataset = MBPP_PLUS
    plus = True
    completion_stop = MBPP_STOP
    extractor, equivalence = EXTRACTOR, EQUIVALENCE
    protocols = evalplus_protocols(MBPP_STOP)
    paper = "https://arxiv.org/abs/2305.01210"
    licence = "CC-BY-4.0 (MBPP), Apache-2.0 (MBPP+)"
