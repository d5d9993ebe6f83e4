"""MBPP+ v0.2.0: the 378 problems of EvalPlus' MBPP with about 105 inputs each."""

from harness.grading.code.task import EQUIVALENCE, EXTRACTOR, MBPP_PLUS, MBPP_STOP, CodeTask, evalplus_protocols


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
    note = (
        "Mbpp/14, Mbpp/267 and Mbpp/287 cannot be passed by a program that computes in exact integers: their plus "
        "outputs are floats beyond 2^53, rounded, and an int has no tolerance (github.com/evalplus/evalplus/issues/308)"
    )
