"""Texts that think before they answer: what stands behind the last ``</think>`` is the answer."""

from __future__ import annotations

from enum import StrEnum

OPENS, CLOSES = "<think>", "</think>"


class Thought(StrEnum):
    """Whether a text thinks first, as far as it shows."""

    NONE = "none"
    CLOSED = "closed"
    OPEN = "never closed"


def thought(text: str) -> Thought:
    """``OPEN`` where the text begins with ``<think>`` and closes none; a template may have written the opening."""
    if CLOSES in text:
        return Thought.CLOSED
    return Thought.OPEN if text.lstrip().startswith(OPENS) else Thought.NONE


def answer_of(text: str) -> str:
    """What is graded: all behind the last ``</think>``; nothing of thoughts that never close; else the whole text."""
    found = thought(text)
    if found is Thought.OPEN:
        return ""
    return text.rpartition(CLOSES)[2] if found is Thought.CLOSED else text
