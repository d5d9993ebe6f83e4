"""Reads and compares numbers in a stated base, such as ``52_8``, ``1A_{16}``, ``(1011)_{two}`` or ``52 (base 8)``.

A number without a base is read in the base of the number it is compared with. A number with a digit that its base does
not have cannot be read and equals nothing.
"""

from __future__ import annotations

import re
import string

MOST = 36  # largest base: digits 0-9, then letters
NAMED = "two three four five six seven eight nine ten eleven twelve".split()  # noqa: SIM905
WORDS = {word: base for base, word in enumerate(NAMED, 2)}
WORDS |= {"binary": 2, "octal": 8, "decimal": 10, "hexadecimal": 16, "hex": 16, "sixteen": 16}
NUMBER = r"(-?)\s*(?:\(\s*([0-9A-Za-z]+)\s*\)|(?:\\text\s*\{\s*)?([0-9A-Za-z]+)\}?)"
SUBSCRIPT = re.compile(
    NUMBER + r"\s*_\s*\{?\s*(?:\\text\s*\{)?\s*\(?\s*(?:base[\s~]*\}?\s*)?([0-9]{1,2}|[a-z]+)\s*\)?\s*\}?\s*\}?",
    re.ASCII,
)
IN_WORDS = re.compile(
    NUMBER + r"\s*,?\s*\(?\s*(?:\\text\s*\{)?\s*\(?\s*(?:in\s+)?"
    r"(?:base[\s\-~]*\}?\s*([0-9]{1,2}|[a-z]+)|(binary|octal|hexadecimal))\s*\)?\}?\s*\)?",
    re.ASCII,
)
BARE = re.compile(r"(-?)\s*\(?\s*(?:\\text\s*\{\s*)?([0-9A-Za-z]+)\s*\}?\)?", re.ASCII)
DIGITS = {digit: value for value, digit in enumerate(string.digits + string.ascii_uppercase)}


def base_and_digits(text: str, *, any_letters: bool = False) -> tuple[str, str, int] | None:
    """``(sign, numeral, base)``, such as ``("-", "1A", 16)`` for ``-1A_{16}``; None if no base is stated.

    A name with an index (``x_2``, ``a_{16}``) is not a number: the numeral needs a digit or capitals only, except with
    ``any_letters``.
    """
    text = re.sub(r"(?<=\d)\\text\s*\{([A-Z]+)\}(?=\s*_)", r"\1", text)
    text = re.sub(r"^(-?)\s*(?:\\overline\s*)?\{\s*([0-9A-Za-z]+)\s*\}(?=\s*_)", r"\1\2", text)
    match = SUBSCRIPT.fullmatch(text) or IN_WORDS.fullmatch(text)
    if not match:
        return None
    named = match[4] or match[match.lastindex]
    base = int(named) if named.isdigit() else WORDS.get(named, 0)
    numeral = match[2] or match[3]
    if not 2 <= base <= MOST or not (any_letters or re.search(r"\d|^[A-Z]+$", numeral)):
        return None
    if base <= 10 and not re.search(r"\d", numeral):
        return None
    return match[1], numeral, base


def value(sign: str, numeral: str, base: int) -> int | None:
    """The value of ``numeral`` in ``base``, None if it has a digit that the base does not have."""
    if any(DIGITS.get(digit, MOST) >= base for digit in numeral.upper()):
        return None
    return int(sign + numeral, base)


def same(gold: str, answer: str) -> bool | None:
    """Whether two texts are the same number; None if neither states a base."""
    gold_digits = base_and_digits(gold)
    answer_digits = base_and_digits(answer, any_letters=gold_digits is not None)
    if gold_digits is None and answer_digits is None:
        return None
    values = []
    for text, digits, other in ((gold, gold_digits, answer_digits), (answer, answer_digits, gold_digits)):
        if digits is None:
            bare = BARE.fullmatch(text)
            if bare is None:
                return None  # an expression, to be compared as one
            # A reference without a base is in base ten; an answer without one is in the base of the reference.
            digits = bare[1], bare[2], other[2] if text is answer else 10
        values.append(value(*digits))
    return values[0] is not None and values[0] == values[1]


def in_base_ten(text: str) -> str:
    """``text`` as a decimal number if it states a base and can be read, else ``text`` unchanged."""
    digits = base_and_digits(text)
    number = None if digits is None else value(*digits)
    return text if number is None else str(number)
