"""Parses the structure of an answer: values, tuples, intervals, sets, lists, and names such as ``x=``.

Works on strings only. math-verify's own parser loses the structure: it reads ``(1,2)`` as an interval, ``1,2`` as an
unordered set and ``3 4`` as seven. Whether two *values* are equal is left to math-verify
(:mod:`harness.grading.maths.equal`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import partial

from harness.grading.maths.brackets import nesting, split
from harness.grading.maths.notation import NAME, THOUSANDS, digits
from harness.grading.maths.units import mixed

LITERAL = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)", re.ASCII)
LONGEST_LITERAL = 4000  # characters; Python refuses to convert integers of more than 4300 digits
ONE_COMMA = re.compile(r"([^\d,()\[\]]*)(\d+)(\{,\}|,)(\d+)((?![\d.])[^,()\[\]]*)", re.ASCII)
CASES = r";|\\lor(?![a-zA-Z])"
SEPARATOR = r"[,;]|\\l(?:or|and)(?![a-zA-Z])"
CONDITION = re.compile(r"[<>]|\\(?:le|ge|ne|lt|gt|notin|setminus|mathbb|cap|emptyset|mid)(?![a-zA-Z])")
SIGNS = re.compile(r"\\(?:pm|mp)(?![a-zA-Z])")
POINT = re.compile(r"^[A-Z]'?\s*(?=\([^()]*,[^()]*\)$)")  # P(2,1)
NAMES = re.compile(r"\(\s*\\?[A-Za-z]+(?:\s*,\s*\\?[A-Za-z]+)+\s*\)")
MEMBER = re.compile(r"^(?:\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])*\s*\)|[^()\[\]{}=<>]{1,20})\s*\\in(?![a-zA-Z])")


def literal(text: str) -> Fraction | None:
    """The exact value of a plain decimal number such as ``-033`` or ``2.50``, else None."""
    text = text.strip()
    if len(text) > LONGEST_LITERAL or not LITERAL.fullmatch(text):
        return None
    return Fraction(text.removesuffix("."))


@dataclass(frozen=True)
class Answer:
    """The structure of an answer.

    ``kind`` is value (LaTeX in ``text``), tuple (ordered ``parts``), interval (two ``parts`` between
    ``brackets``), union or list (``parts`` in any order). An open interval ``(a,b)`` has the notation of a pair and is
    read as a tuple.
    """

    kind: str
    text: str
    parts: tuple[Answer, ...] = ()
    brackets: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the parts, as in ``x=1, y=2``; () unless every part has a distinct name."""
        names = tuple(name for name in map(assigned, (part.text for part in self.parts)) if name)
        return names if len(set(names)) == len(self.parts) else ()


def assigned(text: str) -> str | None:
    """The name in ``name = …``, or None."""
    sides = split(text, "=")
    return sides[0].replace(" ", "") if len(sides) > 1 and NAME.fullmatch(sides[0]) else None


def readings(text: str) -> list[Answer]:
    """The ways to read a cleaned answer: commas as separators and, where possible, as thousands separators."""
    decimal = _decimal_comma(text)
    if decimal != text and "{,}" not in text:  # 0,05 is not the list of 0 and 5
        return [read(decimal)]
    return [read(one) for one in dict.fromkeys((text, THOUSANDS.sub(digits, text), decimal))]


def _decimal_comma(text: str) -> str:
    """``0.05`` for ``0,05`` and ``3.5`` for ``3{,}5``, where the only comma of a text can be nothing else.

    ``1,234`` is a thousands separator, ``3,5`` may be two values, and no value begins with the ``0`` of ``05``.
    """
    match = ONE_COMMA.fullmatch(text)
    if not match or THOUSANDS.search(match[2] + "," + match[4]):
        return text
    within = match[3] != "," or (match[4].startswith("0") and len(match[4]) > 1)
    return f"{match[1]}{match[2]}.{match[4]}{match[5]}" if within else text


def read(text: str) -> Answer:
    """The structure of a cleaned text. Several items are a list; ``a \\pm b`` is two items."""
    if mixed(text):  # 12 dollars and 50 cents
        return Answer("value", text)
    # x=1, y=2 or x=3, y=4: alternatives that assign the same names are points.
    pieces = split(text, CASES)
    cases = [read(piece) for piece in pieces] if len(pieces) > 1 else []
    if cases and all(c.kind == "list" and c.names and set(c.names) == set(cases[0].names) for c in cases):
        return Answer("list", text, tuple(Answer("tuple", c.text, c.parts, "()") for c in cases))
    parts = [_item(item) for piece in split(text, SEPARATOR) for item in _both_signs(piece)]
    return parts[0] if len(parts) == 1 else Answer("list", text, tuple(parts))


def _item(text: str) -> Answer:
    """The structure of one item of a list."""
    text = POINT.sub("", MEMBER.sub("", text)).strip()
    sides = split(text, "=")
    side = sides[-1]
    # A union; of sets in braces it is one list of all members.
    pieces = split(side, r"\\cup(?![a-zA-Z])")
    if len(pieces) > 1:
        parts = tuple(_item(piece) for piece in pieces)
        if all(part.kind == "list" for part in parts):  # {1} and {2}
            return Answer("list", text, tuple(member for part in parts for member in part.parts))
        return Answer("union", text, parts)
    opening, body, closing = enclosed(side)
    # A set in braces without a condition is a list.
    if opening == "\\{" and not re.search(r"\\(?:mid|vert|colon|le|ge|ne)(?![a-z])|[|:<>]", body):
        listed = read(body)
        nested = enclosed(body)[0] == "\\{"  # {{1,3}} has one member, a set
        return Answer("list", side, listed.parts if listed.kind == "list" and not nested else (listed,))
    pieces = split(body, "[,;]")
    # [(1,2),(3,4)] is a list of points.
    if opening + closing == "[]" and len(pieces) > 1 and all(_item(piece).kind == "tuple" for piece in pieces):
        return Answer("list", side, tuple(_item(piece) for piece in pieces))
    # Brackets around several pieces: a tuple or an interval.
    if opening in {"(", "["} and len(pieces) > 1:
        brackets = opening + closing
        kind = "interval" if len(pieces) == 2 and brackets != "()" else "tuple"
        names = split(sides[0][1:-1], ",") if len(sides) > 1 and NAMES.fullmatch(sides[0]) else []
        if len(names) == len(pieces):  # (x,y)=(1,2) is x=1, y=2
            pieces = [f"{name}={piece}" for name, piece in zip(names, pieces, strict=True)]
        return Answer(kind, side, tuple(_item(piece) for piece in pieces), brackets)
    return Answer("value", text)


def enclosed(text: str) -> tuple[str, str, str]:
    """``(opening, body, closing)`` if one pair of brackets encloses ``text``, else ``("", text, "")``."""
    match = re.fullmatch(r"(\(|\[|\\\{)(.*?)(\)|\]|\\\})", text, re.DOTALL)
    if match and (match[1] == "\\{") == (match[3] == "\\}") and nesting(match[2]) >= 0:
        return match[1], match[2], match[3]
    return "", text, ""


def _both_signs(text: str) -> list[str]:
    """The two answers that ``\\pm`` or ``\\mp`` stands for, in a value or a tuple; ``[text]`` otherwise.

    A set in braces is left as it is, because its members are split when they are read.
    """
    count = len(SIGNS.findall(text))
    opening = enclosed(text)[0]
    if not count or opening == "\\{" or (opening and count > 1) or len(split(text, r"\\cup\b")) > 1:
        return [text]
    signs = [{"\\pm": "+", "\\mp": "-"}, {"\\pm": "-", "\\mp": "+"}]
    return [SIGNS.sub(partial(_sign, chosen), text) for chosen in signs]


def _sign(chosen: Mapping[str, str], match: re.Match) -> str:
    return chosen[match.group()]
