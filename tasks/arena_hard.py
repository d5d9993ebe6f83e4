"""Arena-Hard v0.1: 500 hard prompts of Chatbot Arena; a judge compares each response with gpt-4-0314's, in both orders.

A significant preference counts three votes and a slight one a single vote, as upstream counts them. The score is the
mean over prompts of the share of votes; upstream's figure, the share of all votes together, is reported too.
"""

import dataclasses
from statistics import fmean

from harness.errors import BadInput
from harness.grading.instruction.pairwise import PairwiseTask
from harness.grading.judges.protocols import votes
from harness.task import Dataset
from harness.types import Decoding, Problem, Prompt


class ArenaHard(PairwiseTask):
    """Share of votes against gpt-4-0314, with Arena-Hard's judge prompt."""

    name = "arena_hard"
    version = "1"
    paper = "https://arxiv.org/abs/2406.11939"
    licence = "Apache-2.0 (repository; prompts from Chatbot Arena users)"
    decoding = Decoding(max_new_tokens=4096)
    judge_protocol = "arena-hard"
    equivalence = "the judge prefers it to the reference, in both orders; a significant preference counts three votes"
    dataset = Dataset(
        local="arena_hard_v0.1/model_answer/gpt-4-0314.jsonl",
        repository="lmarena/arena-hard-auto",
        commit="196f6b826783b3da7310e361a805fa36f0be83f3",
        path="data/arena-hard-v0.1/model_answer/gpt-4-0314.jsonl",
        sha256="0f6abc84de4600fde987d9db70f838f4ecdbd27a2f1f4058c12aa322a6f791b2",
        n=500,
    )

    def problems(self, rows):
        return [self._problem(index, row) for index, row in enumerate(rows)]

    def _problem(self, index, row):
        """A row is the baseline's conversation: the prompt, then its answer."""
        try:
            (question, answer), uid = row["messages"], str(row["uid"])
            prompt, reference = question["content"], answer["content"]["answer"]
        except (KeyError, TypeError, ValueError):
            prompt = reference = None
        if not isinstance(prompt, str) or not isinstance(reference, str):
            raise BadInput(
                f"{self.name}: item {index} of {self.data.source} is not a conversation of a prompt and an answer"
            )
        return Problem(uid, Prompt(user=prompt, plain=f"Instruction: {prompt}\nResponse:\n"), reference)

    def grade_all(self, completions):
        return [_voted(verdict) for verdict in super().grade_all(completions)]

    def grade(self, problem, text):
        return _voted(super().grade(problem, text))

    def measures(self, graded):
        """The figures of a win rate, and ``arena_hard``: the share of all votes."""
        cast = [vote for row in graded if not row["error"] for vote in _votes(row["extracted"])]
        return super().measures(graded) | ({"arena_hard": fmean(cast)} if cast else {})


def _voted(verdict):
    return verdict if verdict.error else dataclasses.replace(verdict, score=fmean(_votes(verdict.extracted)))


def _votes(extracted):
    return votes([float(share) for share in extracted.split("|")])
