"""Separates the answer of a reasoning model from its thoughts: the answer follows the last ``</think>``."""

from __future__ import annotations

from enum import StrEnum

OPENS, CLOSES = "<think>", "</think>"


class Thought(StrEnum):
    """Whether a text begins with thoughts, and whether they are closed."""

    NONE = "none"
    CLOSED = "closed"
    OPEN = "never closed"


def thought(text: str) -> Thought:
    """The state of the thoughts in ``text``. A closing tag is enough: the chat template may have opened them."""
    if CLOSES in text:
        return Thought.CLOSED
    return Thought.OPEN if text.lstrip().startswith(OPENS) else Thought.NONE


def answer_of(text: str) -> str:
    """The part to grade: the text after the last ``</think>``, "" if thoughts are never closed, else all of it."""
    found = thought(text)
    if found is Thought.OPEN:
        return ""
    return text.rpartition(CLOSES)[2] if found is Thought.CLOSED else text
