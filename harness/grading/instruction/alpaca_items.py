"""The 805 AlpacaEval instructions with the responses of a reference model, and their difficulties.

Version 1 of the benchmark compares with text-davinci-003, version 2 with gpt-4-1106-preview. They share only the
instructions, so their win rates must not be compared with each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.grading.instruction.pairwise import PairwiseTask
from harness.task import Dataset, Protocol
from harness.types import Problem

if TYPE_CHECKING:
    from harness.grading.instruction.length_control import Gamed


def _outputs(model: str, sha256: str) -> Dataset:
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
    "text_davinci_003": _outputs(
        "text_davinci_003", "af0bc112f08c88bf589bbfe6fc1036806d0a0f6fec9c4d5a4db860f5afe73b4b"
    ),
    "gpt4_1106_preview": _outputs(
        "gpt4_1106_preview", "83db546b872ddebee8965fd05fa48461ee3c32bc695c62fb57f2d214ff741ec4"
    ),
}


class AlpacaItems(PairwiseTask):
    """A task on the rows of a ``model_outputs.json``. Problem ids are positions in that file, 0 to 804."""

    dataset = REFERENCES["text_davinci_003"]
    instruction_field, reference_field = "instruction", "output"
    judge_protocol = "alpacaeval-1"
    protocols = PairwiseTask.protocols | {
        "alpacaeval-1": Protocol(
            "AlpacaEval 1: against text-davinci-003, ranked in one order drawn by the instruction",
            {"dataset": REFERENCES["text_davinci_003"], "judge_protocol": "alpacaeval-1"},
        ),
        "alpacaeval-2": Protocol(
            "AlpacaEval 2: against gpt-4-1106-preview, by the log-probabilities of one token; read the "
            "length-controlled rate beside the win rate",
            {"dataset": REFERENCES["gpt4_1106_preview"], "judge_protocol": "alpacaeval-2"},
        ),
    }
    paper = "https://arxiv.org/abs/2404.04475"
    licence = "CC BY-NC 4.0 (data), Apache-2.0 (code)"

    def length_baselines(self, problems: Sequence[Problem]) -> tuple[list[float] | None, Gamed | None]:
        """AlpacaEval's difficulties, by position in the pinned file; (None, None) for any other file."""
        from harness.grading.instruction.length_control import read_difficulty, read_gamed, recovered

        pinned = self.data.sha256 in {dataset.sha256 for dataset in REFERENCES.values()}
        difficulty = read_difficulty() if pinned else None
        if difficulty is None:
            return None, None
        return [difficulty[int(p.id)] for p in problems], read_gamed() or recovered(difficulty)
