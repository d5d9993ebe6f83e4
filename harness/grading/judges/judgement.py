"""The contract of a judge, which decides which of two responses to an instruction is better.

A judge is a class with a ``name``. ``--judge NAME:ARGUMENT`` finds it by that name, ``--judge my_judge.py:ARGUMENT`` in
a file, and a plugin registers it under the entry point group ``harness.judges``. It gives its identity,
everything that decides its verdicts, and one of two rules: ``judge`` for engines that work in batches and may fail, or
``prefer`` for small deterministic judges::

    class MostDigits(Judge):
        name = "most_digits"

        def identity(self):
            return {"kind": "most_digits", "version": "1"}

        def prefer(self, instruction, reference, candidate):
            ours, theirs = (sum(c.isdigit() for c in text) for text in (candidate, reference))
            return (0.5 if ours == theirs else float(ours > theirs)), f"{ours} digits against {theirs}"

:mod:`harness.grading.judges.open_judge` makes a judge from the value of ``--judge``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from harness import error_location
from harness.errors import BadInput, RunFailed

log = logging.getLogger(__name__)

FORMS = "openai:MODEL[@URL], hf:DIR_OR_ID, replay:FILE, longest, or the name or file of a judge of your own"


@dataclass(frozen=True)
class PairToJudge:
    """Two responses to one instruction: the benchmark's ``reference`` and the ``candidate`` under test."""

    id: str
    instruction: str
    reference: str
    candidate: str


@dataclass(frozen=True)
class ConversationToRate(PairToJudge):
    """An answer to rate, the last of ``answers``: each answers the question at its place.

    ``references`` are reference answers to the questions, empty if the judge gets none. ``candidate`` is the answer
    to rate, ``instruction`` the text before it and ``reference`` the reference answers, each as one text.
    """

    questions: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    references: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """A judge's verdict on one comparison.

    ``score`` is the candidate's, in [0, 1] (0.5 is a tie), or None where the judge gave no verdict.
    ``by_order`` has the candidate's score for each order asked, the reference shown first before the
    candidate shown first, so a judge of both orders gives two. ``unparsed`` marks a judge that replied
    without a verdict in its reply, as opposed to one that could not be reached. ``words`` is what it wrote.
    """

    score: float | None
    reason: str
    by_order: tuple[float, ...] = ()
    unparsed: bool = False
    words: str | None = None


class Judge:
    """Says which of two responses is better. A subclass gives ``name``, ``identity`` and ``judge`` or ``prefer``."""

    name: ClassVar[str]
    rates: bool = False  # whether it rates single answers (see ConversationToRate) instead of comparing two
    takes: ClassVar[str] = ""  # the argument after NAME: in --judge, as shown in help; "" for none

    @classmethod
    def open(cls, argument: str, protocol: str, keep: Path | None) -> Judge:
        """The judge of ``NAME:argument``.

        ``protocol`` is how the task asks a model judge (``harness.grading.judges.protocols``), ``keep`` the folder for
        answers. Raises BadInput for an invalid argument.
        """
        if argument and not cls.takes:
            raise BadInput(f"judge {cls.name} takes no argument but got {argument!r}; give --judge {cls.name}")
        if cls.takes and not argument:
            raise BadInput(f"judge {cls.name} takes {cls.takes}: --judge {cls.name}:{cls.takes}")
        return cls(argument) if cls.takes else cls()

    def identity(self) -> dict[str, Any]:
        """Everything that determines a verdict besides the texts, as JSON; part of the protocol."""
        raise NotImplementedError(
            f"judge {self.name} has no identity(self); return everything that determines its verdicts"
        )

    def prefer(self, instruction: str, reference: str, candidate: str) -> tuple[float, str]:
        """The candidate's score against the reference (1 win, 0.5 tie, 0 loss) and the reason."""
        raise NotImplementedError(f"judge {self.name} has neither judge nor prefer")

    def judge(self, comparisons: Sequence[PairToJudge]) -> list[Judgement]:
        """The judgements in the order of ``comparisons``; ``Judgement(None, reason)`` without a verdict."""
        return [Judgement(*self.prefer(c.instruction, c.reference, c.candidate)) for c in comparisons]


class Longest(Judge):
    """The longer response wins: alpaca_eval's trivial baseline, which measures length and nothing else."""

    name = "longest"

    def __init__(self):
        log.warning("judge 'longest' measures length only: for plumbing, not for results")

    def identity(self) -> dict[str, Any]:
        return {"kind": "longest", "version": "1"}

    def prefer(self, instruction: str, reference: str, candidate: str) -> tuple[float, str]:
        gap = len(candidate) - len(reference)
        score = 0.5 if gap == 0 else float(gap > 0)
        return score, f"length gap {gap:+d} characters"


def judge_all(judge: Any, comparisons: Sequence[PairToJudge]) -> list[Judgement]:
    """One judgement for each comparison, in order. Raises RunFailed with FILE:LINE for anything else."""
    if not hasattr(judge, "judge"):
        return [Judgement(*judge.prefer(c.instruction, c.reference, c.candidate)) for c in comparisons]
    with error_location.faults_as(RunFailed, called=type(judge)):
        judgements = judge.judge(comparisons)
    where = error_location.of(type(judge), "judge" if "judge" in vars(type(judge)) else "prefer")
    if not isinstance(judgements, list | tuple) or len(judgements) != len(comparisons):
        raise RunFailed(
            f"{where}: gave {error_location.describe(judgements)} on {len(comparisons)} pairs; a list of one Judgement "
            "each"
        )
    for judgement in judgements:
        score = getattr(judgement, "score", "nothing")
        number = isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= 1
        if not isinstance(judgement, Judgement) or not (score is None or number):
            raise RunFailed(f"{where}: gave {judgement!r:.80}; Judgement(score from 0 to 1 or None, reason) is wanted")
        if not isinstance(judgement.reason, str):
            raise RunFailed(f"{where}: gave the reason {judgement.reason!r:.60}; text is wanted")
    return list(judgements)


def require_judge(task: str, judge: Any) -> Any:
    """``judge``, or BadInput naming the option that gives one."""
    if judge is None:
        raise BadInput(f"task {task} is graded by a judge: give one with --judge ({FORMS})")
    return judge


# MT-Bench's judging: rates one answer in its conversation from 1 to 10 (lm-sys/FastChat, Apache-2.0).
#
# The prompts are those of ``fastchat/llm_judge/data/judge_prompts.jsonl``: ``single-v1`` for the first turn and
# ``single-v1-multi-turn`` for the second, ``single-math-v1`` and ``single-math-v1-multi-turn`` where the judge gets
# reference answers. Upstream takes the first rating in double brackets, else the first
# in single ones. A rating outside 1 to 10 does not count here; upstream would average it.

LOW, HIGH = 1.0, 10.0
_IMPARTIAL = (
    "Please act as an impartial judge and evaluate the quality of the response provided by an AI assistant to the"
)
_FACTORS = (
    "Your evaluation should consider factors such as the helpfulness, relevance, accuracy, depth, creativity, and "
    "level of detail of the response."
)
_CORRECT = (
    "Your evaluation should consider correctness and helpfulness. You will be given a reference answer and the "
    "assistant's answer."
)
_EXPLAIN = "Begin your evaluation by providing a short explanation."
_COMPARE = (
    "Begin your evaluation by comparing the assistant's answer with the reference answer. Identify and correct any "
    "mistakes."
)
_RATE = (
    "Be as objective as possible. After providing your explanation, you must rate the response on a scale of 1 to 10 "
    'by strictly following this format: "[[rating]]", for example: "Rating: [[5]]".\n\n'
)
_ASSISTANT = "You are a helpful assistant."
_FIRST = "[Question]\n{question_1}\n\n"
_REFERENCE = "[The Start of Reference Answer]\n{reference_1}\n[The End of Reference Answer]\n\n"
_ANSWER = "[The Start of Assistant's Answer]\n{answer_1}\n[The End of Assistant's Answer]"
_CONVERSATION = (
    "<|The Start of Assistant A's Conversation with User|>\n\n### User:\n{question_1}\n\n### Assistant A:\n{answer_1}"
    "\n\n### User:\n{question_2}\n\n### Assistant A:\n{answer_2}\n\n<|The End of Assistant A's Conversation with User|>"
)
_REFERENCES = (
    "<|The Start of Reference Answer|>\n\n### User:\n{question_1}\n\n### Reference answer:\n{reference_1}\n\n### User:"
    "\n{question_2}\n\n### Reference answer:\n{reference_2}\n\n<|The End of Reference Answer|>\n\n\n"
)
# By the number of turns, and whether the judge gets reference answers: what the system and the user say.
TURNS = {
    (1, False): (
        _ASSISTANT,
        f"[Instruction]\n{_IMPARTIAL} user question displayed below. {_FACTORS} {_EXPLAIN} {_RATE}{_FIRST}{_ANSWER}",
    ),
    (1, True): (
        _ASSISTANT,
        f"[Instruction]\n{_IMPARTIAL} user question displayed below. {_CORRECT} {_COMPARE} {_RATE}{_FIRST}{_REFERENCE}"
        f"{_ANSWER}",
    ),
    (2, False): (
        f"{_IMPARTIAL} user question displayed below. {_FACTORS} You evaluation should focus on the assistant's answer "
        f"to the second user question. {_EXPLAIN} {_RATE}",
        _CONVERSATION,
    ),
    (2, True): (
        f"{_IMPARTIAL} user question. {_CORRECT} You evaluation should focus on the assistant's answer to the second "
        f"question. {_COMPARE} {_RATE}",
        _REFERENCES + _CONVERSATION,
    ),
}
_RATINGS = (re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]"))


def rating(text: str) -> float | None:
    """The rating in a reply, None if it has none from 1 to 10."""
    for pattern in _RATINGS:
        if match := pattern.search(text):
            value = float(match[1])
            return value if LOW <= value <= HIGH else None
    return None


def as_share(value: float) -> float:
    """A rating on the scale of judgements, [0, 1]."""
    return (value - LOW) / (HIGH - LOW)


def of_share(share: float) -> float:
    """The rating of a judgement's score."""
    return round(LOW + (HIGH - LOW) * share, 6)


def rating_messages(conversation: PairToJudge) -> list[dict[str, str]]:
    """The chat turns that ask for a rating. Every field is filled once, so that no answer can insert another."""
    if not isinstance(conversation, ConversationToRate):
        raise RunFailed("the judge rates single answers, and this task compares two: leave protocol=mt-bench out")
    fields: Mapping[str, str] = {
        f"{name}_{place}": text
        for name, texts in (
            ("question", conversation.questions),
            ("answer", conversation.answers),
            ("reference", conversation.references),
        )
        for place, text in enumerate(texts, 1)
    }

    def fill(template: str) -> str:
        return re.sub(r"\{(\w+_\d)\}", lambda match: fields[match[1]], template)

    templates = TURNS[len(conversation.answers), bool(conversation.references)]
    return [{"role": role, "content": fill(text)} for role, text in zip(("system", "user"), templates, strict=True)]
