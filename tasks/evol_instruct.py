"""Evol-Instruct test set: 218 evolved instructions; a judge compares each response with gpt-3.5-turbo's.

The instructions are WizardLM's; the reference responses and the order are DistiLLM-2's.
"""

from harness.grading.instruction.pairwise import PairwiseTask
from harness.task import Dataset


class EvolInstruct(PairwiseTask):
    """Win rate against gpt-3.5-turbo, judged in both orders as DistiLLM-2 does."""

    name = "evol_instruct"
    version = "2"
    dataset = Dataset(
        local="evol_instruct/evol_inst_eval.json",
        repository="jongwooko/distillm-2",
        commit="fe4cf9bfbb4f83219dd1d69219800164b59685fa",
        path="eval/evol-instruct/evol_inst_eval.json",
        sha256="c721d66df27a6246e31939c6fcb3d96a12bd2c374ac4464750292edea56e3300",
        n=218,
    )
    instruction_field, reference_field = "prompt", "generated_text"
    judge_protocol = "distillm2"
    paper = "https://arxiv.org/abs/2304.12244, references of https://arxiv.org/abs/2503.07067"
    licence = "CC BY-NC 4.0 (prompts)"
