"""Benchmarks of several turns: a judge rates each answer in its conversation, from 1 to 10.

The second question is asked after the model's own first answer (:mod:`harness.evaluation.evaluate`), and the judge
reads the whole conversation. A problem ``q/n`` is turn n of question q.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any, ClassVar

from harness import data
from harness.errors import BadInput
from harness.grading.judges.judgement import ConversationToRate, Judgement, judge_all, of_share, require_judge
from harness.task import Dataset, Task
from harness.types import Completion, Decoding, Problem, Prompt, Verdict


class RatedTurns(Task):
    """Questions in FastChat's form: ``question_id``, ``category`` and ``turns``.

    ``temperatures`` are those of the categories. The judge gets reference answers, from ``references`` or the row's
    ``reference_answer``, in the ``referenced`` ones.
    """

    family, metric, grader = "instruction", "rating_of_turns", "judge"
    judge_protocol, samples_as = "mt-bench", "fastchat"
    needs_judge = needs_rating = True
    extractor = "the whole completion, without the thoughts before the last </think>"
    equivalence = "a judge's rating from 1 to 10 of the answer in its conversation"
    temperatures: ClassVar[Mapping[str, float]]
    referenced: ClassVar[tuple[str, ...]] = ()
    references: ClassVar[Dataset]
    known_turns: ClassVar[int] = 2  # that the judge's prompts cover

    def problems(self, rows: Sequence[Mapping[str, Any]]) -> list[Problem]:
        # The pinned questions have their reference answers in a file of their own.
        elsewhere = any(row.get("category") in self.referenced and not row.get("reference_answer") for row in rows)
        answers = {}
        for row in data.read(self.references).rows if elsewhere else ():
            answers[str(row["question_id"])] = tuple(row["choices"][0]["turns"])
        return [problem for number, row in enumerate(rows, 1) for problem in self._turns(row, number, answers)]

    def _turns(self, row: Mapping[str, Any], number: int, answers: Mapping[str, tuple[str, ...]]) -> Iterator[Problem]:
        where, turns, category = f"{self.data.source}: row {number}", row.get("turns"), row.get("category")
        if not isinstance(turns, list) or len(turns) != self.known_turns or not all(isinstance(t, str) for t in turns):
            raise BadInput(f"{where} has no {self.known_turns} texts under 'turns'")
        if category not in self.temperatures or "question_id" not in row:
            raise BadInput(f"{where} has no 'question_id', or no 'category' of {', '.join(self.temperatures)}")
        name = str(row["question_id"])
        references: tuple[str, ...] = ()
        if category in self.referenced:
            references = tuple(row.get("reference_answer") or answers.get(name, ()))
            if len(references) != len(turns):
                raise BadInput(f"{where}: question {name} of {category} has no {len(turns)} reference answers")
        meta = {"category": category, "questions": tuple(turns), "references": references}
        for turn, text in enumerate(turns, 1):
            prompt = Prompt(user=text, plain=f"Instruction: {text}\nResponse:\n")
            yield Problem(f"{name}/{turn}", prompt, None, meta, follows=f"{name}/{turn - 1}" if turn > 1 else "")

    def decoding_for(self, problem: Problem, decoding: Decoding) -> Decoding:
        if decoding.temperature != self.decoding.temperature:  # a recipe's own temperature applies to all
            return decoding
        return dataclasses.replace(decoding, temperature=self.temperatures[problem.meta["category"]])

    def grade(self, problem: Problem, text: str) -> Verdict:
        return self.grade_all([Completion(problem.id, 0, text, 0, "stop")])[0]

    def grade_all(self, completions: Sequence[Completion]) -> list[Verdict]:
        judge, by_id = require_judge(self.name, self.judge), {problem.id: problem for problem in self.items}
        text_of = {(completion.problem_id, completion.sample): completion.text for completion in completions}
        conversations = {}
        for completion in completions:
            problem = by_id[completion.problem_id]
            before = (text_of.get((problem.follows, completion.sample)),) if problem.follows else ()
            if None not in before:
                answers = (*before, completion.text)
                conversations[problem.id, completion.sample] = _conversation(problem, answers, completion.sample)
        rated = dict(zip(conversations, judge_all(judge, list(conversations.values())), strict=True))
        return [_verdict(c, rated.get((c.problem_id, c.sample))) for c in completions]

    def measures(self, graded: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The means of the turns and of the categories, and how many answers have no rating."""
        kinds = {problem.id: problem.meta["category"] for problem in self.items}
        groups: dict[str, list[float]] = {}
        for row in (row for row in graded if not row["error"]):
            for name in (f"turn_{row['problem_id'].rpartition('/')[2]}", kinds[row["problem_id"]]):
                groups.setdefault(name, []).append(row["score"])
        unrated = sum(bool(row["error"]) for row in graded)
        means = {name: fmean(scores) for name, scores in groups.items()}
        return super().measures(graded) | means | {"unrated": unrated}


def _conversation(problem: Problem, answers: tuple[str, ...], sample: int) -> ConversationToRate:
    questions, references = (problem.meta[name][: len(answers)] for name in ("questions", "references"))
    before = "\n\n".join([*questions, *answers[:-1]])
    name, reference = f"{problem.id}/{sample}", "\n\n".join(references)
    return ConversationToRate(name, before, reference, answers[-1], questions, answers, references)


def _verdict(completion: Completion, judgement: Judgement | None) -> Verdict:
    if judgement is None:
        reason = "the turn before it has no answer"
        return Verdict(completion.problem_id, completion.sample, 0.0, reason, error=True)
    if judgement.score is None:
        unread = "unparsed" if judgement.unparsed else None
        return Verdict(completion.problem_id, completion.sample, 0.0, judgement.reason, unread, error=True)
    value = of_share(judgement.score)
    return Verdict(completion.problem_id, completion.sample, value, judgement.reason, f"{value:g}")
