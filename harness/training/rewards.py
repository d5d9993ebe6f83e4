"""Rewards: the data's own grader scores the texts of an optimizer step, and a teacher may look back on the scores.

Only answers to training prompts are graded. All responses to a prompt are texts of one process, so that a prompt of the
teacher's in hindsight is made where the text is.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import defaultdict
from collections.abc import Callable
from collections.abc import Sequence as Seq
from typing import Any

from harness.errors import RunFailed
from harness.method import Hindsight
from harness.models.generate import Generator
from harness.models.token_text import continuation
from harness.training.batching import TrainingSequence
from harness.training.cost import Cost
from harness.training.verdicts import Grader, TextGrade
from harness.types import Example, Prompt


class Rewards:
    """Gives every text its score, and to those that are read in hindsight the prompt under which the teacher does so.

    ``asker`` renders and encodes prompts; a teacher's prompt and the text have ``room`` tokens at most, where bounded.
    """

    def __init__(self, grader: Grader, asker: Generator, hindsight: Hindsight | None, room: int | None):
        self.grader, self.asker, self.hindsight, self.room = grader, asker, hindsight, room

    def judge(self, sequences: Seq[TrainingSequence], prompts: Seq[Example], cost: Cost) -> list[TrainingSequence]:
        """The sequences with ``reward`` set, and with ``asked`` where hindsight tells something.

        Raises RunFailed where not one text could be graded.
        """
        began = time.monotonic()
        asked = [prompts[s.example] for s in sequences]
        texts = [continuation(self.asker.tokenizer, s.prompt, s.response) for s in sequences]
        verdicts = self.grader.verdicts(asked, texts)
        if sequences and all(verdict.score is None for verdict in verdicts):
            raise RunFailed(f"the grader reached no verdict on any of {len(texts)} texts: {verdicts[0].reason}")
        found = [dataclasses.replace(s, reward=v.score) for s, v in zip(sequences, verdicts, strict=True)]
        if self.hindsight is not None:
            told = self._hindsight(found, texts, verdicts, asked)
            found = [dataclasses.replace(s, asked=ids) for s, ids in zip(found, told, strict=True)]
        cost.add(graded_texts=len(texts), grading_seconds=time.monotonic() - began)
        return found

    def _hindsight(
        self, sequences: Seq[TrainingSequence], texts: Seq[str], verdicts: Seq[TextGrade], asked: Seq[Example]
    ) -> list[tuple[int, ...] | None]:
        """For each text the ids of the teacher's prompt; None where there is neither a solution nor feedback."""
        how, groups = self.hindsight, defaultdict(list)
        assert how is not None, "a teacher looks back"
        # In the order of their places, so that which text is the solution does not depend on who collects them.
        order = sorted(range(len(sequences)), key=lambda i: sequences[i].place)
        right = {i for i, v in enumerate(verdicts) if v.score is not None and v.score >= how.least}
        for i in order:
            if i in right:
                groups[sequences[i].example].append(i)
        found: list[tuple[int, ...] | None] = []
        for i, (sequence, verdict, example) in enumerate(zip(sequences, verdicts, asked, strict=True)):
            others = [j for j in groups[sequence.example] if how.own or j != i]
            solution = how.solution.format(text=texts[others[0]]) if others else ""
            heard = how.told == "always" or (how.told == "alone" and not others)
            heard = heard and i not in right and verdict.score is not None and bool(verdict.reason)
            feedback = how.feedback.format(text=verdict.reason) if heard else ""
            ids = self._encoded(example.prompt, solution, feedback) if solution or feedback else None
            fits = ids is not None and (self.room is None or len(ids) + len(sequence.response) <= self.room)
            found.append(ids if fits else None)
        return found

    def _encoded(self, prompt: Prompt, solution: str, feedback: str) -> tuple[int, ...]:
        assert self.hindsight is not None, "a teacher looks back"
        # Only the template is a format: braces of a text stay as they are.
        user, plain = (
            self.hindsight.template.format(prompt=text, solution=solution, feedback=feedback)
            for text in (prompt.user, prompt.plain)
        )
        whole = dataclasses.replace(prompt, user=user, plain=plain)
        return tuple(self.asker.encode(self.asker.render(whole)))


def report(
    sequences: Seq[TrainingSequence], prompts: int, gather: Callable[[list[Any]], list[Any]]
) -> dict[str, float]:
    """The mean ``text_reward`` of the step, and the share of its ``prompts`` whose texts all have one reward.

    The share is called ``groups_alike``. A collective: all processes call it, or none.
    """
    scored = gather([(s.place % prompts, s.reward) for s in sequences if s.reward is not None])
    groups: dict[int, set[float]] = {}
    for prompt, reward in scored:
        groups.setdefault(prompt, set()).add(reward)
    alike = sum(len(scores) == 1 for scores in groups.values())
    mean = math.fsum(reward for _, reward in scored) / len(scored)
    return {"text_reward": mean, "groups_alike": alike / len(groups)}
