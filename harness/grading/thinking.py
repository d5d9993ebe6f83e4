"""Separates the answer of a reasoning model from its thinking: the answer follows the last closing mark."""

from __future__ import annotations

import re
from enum import StrEnum

CLOSES = "</think>"
# How published models write their thoughts; Kimi, Magistral and Seed-OSS have marks of their own.
MARKS = (
    ("<think>", CLOSES),
    ("<thinking>", "</thinking>"),
    ("◁think▷", "◁/think▷"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
)
OPENED = tuple(opens for opens, _ in MARKS)
CLOSED = re.compile("|".join(re.escape(closes) for _, closes in MARKS))


class Thought(StrEnum):
    """Whether a text begins with thoughts, and whether they are closed."""

    NONE = "none"
    CLOSED = "closed"
    OPEN = "never closed"


def thought(text: str) -> Thought:
    """The state of the thoughts in ``text``. A closing mark is enough: the chat template may have opened them."""
    if CLOSED.search(text):
        return Thought.CLOSED
    return Thought.OPEN if text.lstrip().startswith(OPENED) else Thought.NONE


def answer_of(text: str) -> str:
    """The part to grade: the text after the last closing mark, "" if thoughts are never closed, else all of it."""
    thoughts = thought(text)
    if thoughts is Thought.OPEN:
        return ""
    return CLOSED.split(text)[-1] if thoughts is Thought.CLOSED else text
