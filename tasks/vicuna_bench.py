"""Vicuna bench: 80 questions, taken from AlpacaEval, which has a reference response to each of them.

The original compared with GPT-3.5 by a score of GPT-4, and published reference answers to only 10 questions.
AlpacaEval has the same 80 questions in the same order, each with a response of text-davinci-003.
"""

from harness.grading.instruction.alpaca_items import AlpacaItems


class VicunaBench(AlpacaItems):
    """Win rate against text-davinci-003 on AlpacaEval's 80 Vicuna questions, judged in both orders."""

    name = "vicuna_bench"
    version = "2"
    paper = "https://lmsys.org/blog/2023-03-30-vicuna/"
    judge_protocol = "distillm2"
    takes_some = True

    def problems(self, rows):
        return [problem for problem in super().problems(rows) if problem.meta.get("dataset") == "vicuna"]
