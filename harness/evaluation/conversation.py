"""Tasks of several turns: a prompt that follows the model's own answer to the turn before.

A problem names the one that it ``follows``. Problems are asked in rounds, first those that follow none; before the
prompt of a later one stand the earlier question and, sample by sample, what the model answered to it, without thinking.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from harness.grading.thinking import answer_of
from harness.types import Completion, Problem, Prompt, Turn


def rounds(problems: Sequence[Problem]) -> list[list[Problem]]:
    """The problems by how many turns come before them; one list where none follows another."""
    depth: dict[str, int] = {}
    for problem in problems:  # the contract of tasks puts a problem behind the one that it follows
        depth[problem.id] = depth[problem.follows] + 1 if problem.follows else 0
    return [[p for p in problems if depth[p.id] == d] for d in range(max(depth.values(), default=0) + 1)]


def in_order(made: list[Completion], problems: Sequence[Problem]) -> list[Completion]:
    """Completions in the order of the problems; those of one problem keep theirs."""
    place = {problem.id: i for i, problem in enumerate(problems)}
    return sorted(made, key=lambda completion: place[completion.problem_id])


class Conversation:
    """What was asked and answered so far."""

    def __init__(self) -> None:
        self._said: dict[tuple[str, int], tuple[Prompt, str]] = {}

    def prompt(self, problem: Problem, sample: int) -> Prompt:
        """What the model is asked: the problem's prompt, behind the turns that it follows."""
        if not problem.follows:
            return problem.prompt
        before, text = self._said[problem.follows, sample]
        return dataclasses.replace(
            problem.prompt,
            system=before.system,
            history=(*before.history, Turn("user", before.user), Turn("assistant", text)),
            plain=f"{before.plain}{text}\n\n{problem.prompt.plain}",
        )

    def heard(self, problems: Sequence[Problem], made: Sequence[Completion]) -> None:
        """Keeps the answers to ``problems``."""
        by_id = {problem.id: problem for problem in problems}
        for c in made:
            self._said[c.problem_id, c.sample] = self.prompt(by_id[c.problem_id], c.sample), answer_of(c.text)
