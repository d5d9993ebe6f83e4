"""AlpacaEval: 805 instructions; a judge compares each response with text-davinci-003's."""

from harness.grading.instruction.alpaca_items import AlpacaItems


class AlpacaEval(AlpacaItems):
    """Win rate against text-davinci-003 on 805 instructions, by default with the judge prompt of AlpacaEval 1."""

    name = "alpaca_eval"
    version = "2"
    paper = "https://arxiv.org/abs/2404.04475"
