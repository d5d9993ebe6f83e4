"""Instruction-following benchmarks: a judge compares each response with a reference response."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any, ClassVar

from harness.errors import BadInput
from harness.grading.instruction.length_control import win_rate
from harness.grading.judges.judgement import Judgement, PairToJudge, judge_all, require_judge
from harness.grading.thinking import answer_of
from harness.task import Protocol, Task
from harness.types import Completion, Decoding, Problem, Prompt, Verdict

if TYPE_CHECKING:
    from harness.grading.instruction.length_control import Gamed

DISTILLM2 = Protocol(
    "DistiLLM-2's decoding and judge (arXiv 2503.07067): user turn only, both orders, ties half a win each",
    {"decoding": Decoding(temperature=0.8, top_p=0.95, max_new_tokens=1024), "judge_protocol": "distillm2"},
)


class PairwiseTask(Task):
    """A task whose rows contain an instruction and a reference response; its score is a win rate.

    A verdict that the judge did not reach has ``error=True`` and is left out of the win rate, as in alpaca_eval.
    ``extracted`` is the candidate's score in each order asked (``1|0.5``), or ``unparsed`` if the judge's reply had no
    verdict.
    """

    known_wrong, samples_as = "instruction", "alpaca_eval"
    family, metric, needs_judge = "instruction", "win_rate", True
    grader = "judge"
    decoding = Decoding(max_new_tokens=1024)
    instruction_field: ClassVar[str]
    reference_field: ClassVar[str]
    extractor = "the whole completion, without the thoughts before the last </think>"
    equivalence = "the judge prefers it to the reference; a tie is half a win"
    judge_protocol: ClassVar[str] = "alpacaeval-1"  # default protocol of a model judge

    protocols: ClassVar[Mapping[str, Protocol]] = {"distillm2": DISTILLM2}

    def problems(self, rows: Sequence[Mapping[str, Any]]) -> list[Problem]:
        return [self._problem(index, row) for index, row in enumerate(rows)]

    def _problem(self, index: int, row: Mapping[str, Any]) -> Problem:
        for field in (self.instruction_field, self.reference_field):
            if not isinstance(row.get(field), str):
                raise BadInput(f"{self.name}: item {index} of {self.data.source} has no text under {field!r}")
        instruction, reference = row[self.instruction_field], row[self.reference_field]
        prompt = Prompt(user=instruction, plain=f"Instruction: {instruction}\nResponse:\n")
        rest = {k: v for k, v in row.items() if k not in (self.instruction_field, self.reference_field)}
        return Problem(str(index), prompt, reference, rest)

    def grade(self, problem: Problem, text: str) -> Verdict:
        return self._verdicts([(problem, 0, text)])[0]

    def grade_all(self, completions: Sequence[Completion]) -> list[Verdict]:
        by_id = {p.id: p for p in self.items}
        return self._verdicts([(by_id[c.problem_id], c.sample, c.text) for c in completions])

    def _verdicts(self, answers: Sequence[tuple[Problem, int, str]]) -> list[Verdict]:
        judge = require_judge(self.name, self.judge)
        comparisons = [
            PairToJudge(f"{problem.id}/{sample}", problem.prompt.user, problem.reference, text)
            for problem, sample, text in answers
        ]
        judgements = judge_all(judge, comparisons)
        return [_verdict(p.id, sample, j) for (p, sample, _), j in zip(answers, judgements, strict=True)]

    def measures(self, graded: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The figures besides the win rate: ties, position consistency, unparsed replies, lengths, LC win rate.

        ``graded`` are completions with their verdicts: ``problem_id``, ``text``, ``score``, ``extracted`` and
        ``error``. Rates are fractions of one, lengths in characters, gaps candidate minus reference.
        """
        from harness.grading.instruction.length_control import length_controlled

        by_id = {p.id: p for p in self.items}
        problems = [by_id[row["problem_id"]] for row in graded]
        judgements = [_judgement(row) for row in graded]
        figures: dict[str, Any] = dataclasses.asdict(win_rate(judgements))
        if not graded:
            return figures
        # Lengths are those of the judged part of a completion.
        judged = [row["text"] if self.thoughts_are_graded else answer_of(row["text"]) for row in graded]
        candidate = list(map(len, judged))
        reference = [len(self._compared_with(p, text)) for p, text in zip(problems, judged, strict=True)]
        # The length-controlled rate needs the same texts that the judge compared.
        difficulty, gamed = self.length_baselines(problems)
        scores = [j.score for j in judgements]
        controlled = length_controlled(scores, reference, candidate, difficulty, gamed)
        return figures | {
            "candidate_length": fmean(candidate),
            "reference_length": fmean(reference),
            "length_gap": fmean(candidate) - fmean(reference),
            "length_controlled": controlled and dataclasses.asdict(controlled),
        }

    def length_baselines(self, problems: Sequence[Problem]) -> tuple[list[float] | None, Gamed | None]:
        """The difficulty of each problem and the gamed baselines of the length-controlled fit, None if unknown."""
        return None, None

    def _compared_with(self, problem: Problem, text: str) -> str:
        """The reference that the judge saw; recorded judgements contain their own."""
        recorded = getattr(self.judge, "compared_with", lambda instruction, candidate: None)
        return recorded(problem.prompt.user, text) or problem.reference


def _judgement(row: Mapping[str, Any]) -> Judgement:
    """The judgement from which :func:`_verdict` made the verdict in ``row``."""
    if row["error"]:
        return Judgement(None, "", unparsed=row["extracted"] == "unparsed")
    return Judgement(row["score"], "", tuple(float(score) for score in row["extracted"].split("|")))


def _verdict(problem_id: str, sample: int, judgement: Judgement) -> Verdict:
    if judgement.score is None:
        extracted = "unparsed" if judgement.unparsed else None
        return Verdict(problem_id, sample, 0.0, judgement.reason, extracted, error=True)
    extracted = "|".join(f"{score:g}" for score in judgement.by_order or (judgement.score,))
    return Verdict(problem_id, sample, judgement.score, judgement.reason, extracted, words=judgement.words)
