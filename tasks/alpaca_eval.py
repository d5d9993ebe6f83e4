"""AlpacaEval: 805 instructions; a judge compares each response with text-davinci-003's."""

from harness.grading.instruction.alpaca_items import AlpacaItems


class AlpacaEval(AlpacaItems):
    """Win rate against text-davinci-003 on 805 instructions, asked in AlpacaEval 1's words by default."""

    name = "alpaca_eval"
    version = "2"
    paper = "https://arxiv.org/abs/2404.04475"
