"""Vicuna bench: 80 questions, as the part of AlpacaEval that has reference responses to all of them.

The original compared with GPT-3.5 by a GPT-4 score and published reference answers to 10 questions only.
AlpacaEval holds the same 80 questions in the same order, each with a response of text-davinci-003.
"""

from harness.grading.instruction.alpaca_items import AlpacaItems


class VicunaBench(AlpacaItems):
    """Win rate against text-davinci-003 on AlpacaEval's 80 Vicuna questions, judged in both orders."""

    name = "vicuna_bench"
    version = "2"
    paper = "https://lmsys.org/blog/2023-03-30-vicuna/"
    judge_protocol = "distillm2"

    def problems(self, rows):
        return [problem for problem in super().problems(rows) if problem.meta.get("dataset") == "vicuna"]
