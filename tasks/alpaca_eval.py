"""AlpacaEval: 805 instructions; a judge compares each response with a reference model's.

Version 1 compares with text-davinci-003, version 2 with gpt-4-1106-preview. The two share their instructions
and nothing else: their win rates are never to be set side by side.
"""

from harness.grading.pairwise import PairwiseTask
from harness.task import Dataset


def outputs(model: str, sha256: str) -> Dataset:
    """The pinned file of a reference model's responses."""
    path = f"results/{model}/model_outputs.json"
    return Dataset(
        local=f"alpaca_eval/{path}",
        repository="tatsu-lab/alpaca_eval",
        commit="cd543a149df89434d8a54582c0151c0b945c3d20",
        path=path,
        sha256=sha256,
        n=805,
    )


REFERENCES = {
    "alpacaeval-1": outputs(
        "text_davinci_003", "af0bc112f08c88bf589bbfe6fc1036806d0a0f6fec9c4d5a4db860f5afe73b4b"
    ),
    "alpacaeval-2": outputs(
        "gpt4_1106_preview", "83db546b872ddebee8965fd05fa48461ee3c32bc695c62fb57f2d214ff741ec4"
    ),
}


class AlpacaEval(PairwiseTask):
    """Win rate against text-davinci-003, asked in AlpacaEval 1's words unless told otherwise."""

    name, version = "alpaca_eval", "1"
    dataset = REFERENCES["alpacaeval-1"]
    instruction_field, reference_field = "instruction", "output"
    judge_protocol = "alpacaeval-1"
    paper = "https://arxiv.org/abs/2404.04475"
    licence = "CC BY-NC 4.0 (data), Apache-2.0 (code)"
