"""What stands around a colon: times of day, ``6:15 p.m.``, and ratios, ``3:2``. Neither is a quotient."""

from __future__ import annotations

import re

TIME = re.compile(r"(-?\d{1,6}(?:\s*:\s*-?\d{1,6})+)\s*(?:\\text\s*\{)?\s*([ap])?(?(2)\.?\s*m\.?)\s*\}?", re.IGNORECASE)
NOON = 12


def parts(text: str) -> tuple[tuple[int, ...], str] | None:
    """``((6, 15), "p")`` for ``6:15 p.m.``; None where it is no time and no ratio of whole numbers."""
    found = TIME.fullmatch(re.sub(r"^\\text\s*\{(.*)\}$", r"\1", text.strip()))
    return (tuple(map(int, found[1].split(":"))), (found[2] or "").lower()) if found else None


def same(gold: tuple[tuple[int, ...], str], answer: tuple[tuple[int, ...], str]) -> bool:
    """Whether two times or ratios are one. A gold that names no half of the day takes both."""
    if not gold[1]:
        return gold[0] == answer[0]
    return _of_day(*gold) == _of_day(*answer)


def _of_day(fields: tuple[int, ...], half: str) -> tuple[int, ...]:
    hour, *rest = fields
    if half:
        hour = hour % NOON + (NOON if half == "p" else 0)
    return hour, *rest
