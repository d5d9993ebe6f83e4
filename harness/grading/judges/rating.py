"""MT-Bench's way to judge: one answer in its conversation is rated from 1 to 10 (lm-sys/FastChat, Apache-2.0).

The words are those of ``fastchat/llm_judge/data/judge_prompts.jsonl``: ``single-v1`` for the first turn and
``single-v1-multi-turn`` for the second, ``single-math-v1`` and ``single-math-v1-multi-turn`` where the judge gets
reference answers. The last rating would do as well, but upstream takes the first in double brackets, else the first in
single ones. A rating outside 1 to 10 is none here; upstream would average it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from harness.errors import RunFailed
from harness.grading.judges.judgement import ConversationToRate, PairToJudge

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
_TALK = (
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
        _TALK,
    ),
    (2, True): (
        f"{_IMPARTIAL} user question. {_CORRECT} You evaluation should focus on the assistant's answer to the second "
        f"question. {_COMPARE} {_RATE}",
        _REFERENCES + _TALK,
    ),
}
_RATINGS = (re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]"))


def rating(text: str) -> float | None:
    """The rating in a reply, None where it has none from 1 to 10."""
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


def messages(asked: PairToJudge) -> list[dict[str, str]]:
    """The chat turns that ask for a rating. Every field is filled once, so that no answer can insert another."""
    if not isinstance(asked, ConversationToRate):
        raise RunFailed("the judge rates single answers, and this task compares two: leave protocol=mt-bench out")
    fields: Mapping[str, str] = {
        f"{name}_{place}": text
        for name, texts in (("question", asked.questions), ("answer", asked.answers), ("reference", asked.references))
        for place, text in enumerate(texts, 1)
    }

    def fill(template: str) -> str:
        return re.sub(r"\{(\w+_\d)\}", lambda match: fields[match[1]], template)

    said = TURNS[len(asked.answers), bool(asked.references)]
    return [{"role": role, "content": fill(text)} for role, text in zip(("system", "user"), said, strict=True)]
