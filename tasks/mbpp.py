"""MBPP: the 378 problems of MBPP+ v0.2.0 on EvalPlus' ``base`` inputs, asked with one assert shown.

"MBPP" names at least four sets of problems (974, 500, 257 and these 378); papers report this one with MBPP+. Scores on
version 0.1.0, whose 399 problems included 21 broken ones, are not comparable.
"""

from harness.grading.code.task import EQUIVALENCE, EXTRACTOR, MBPP_PLUS, MBPP_STOP, CodeTask, evalplus_protocols


class MBPP(CodeTask):
    """EvalPlus' base tests only; ``mbppplus`` adds the plus tests."""

    name, version = "mbpp", "2"
    dataset = MBPP_PLUS
    plus = False
    completion_stop = MBPP_STOP
    extractor, equivalence = EXTRACTOR, EQUIVALENCE
    protocols = evalplus_protocols(MBPP_STOP)
    paper = "https://arxiv.org/abs/2108.07732"
    licence = "CC-BY-4.0 (MBPP), Apache-2.0 (MBPP+)"
