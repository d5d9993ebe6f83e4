r"""Parses sets of real numbers in any notation: intervals, conditions, set builders, differences.

``(2,\infty)``, ``x>2``, ``\{x \mid x>2\}`` and ``\mathbb{R}\setminus(-\infty,2]`` are the same set. Text that is not a
set of reals gives None and is compared otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from sympy import EmptySet, Expr, FiniteSet, Intersection, Interval, Reals, Set, Union, oo

from harness.grading.maths.answer import MEMBER, enclosed
from harness.grading.maths.brackets import split

Read = Callable[[str], Any]  # the parser of values
RELATION = re.compile(r"(<|>|\\(?:le|ge|ne)(?![a-zA-Z]))")
BUILDER = re.compile(r"(.*?)(?:\\mid(?![a-zA-Z])|\\colon(?![a-zA-Z])|\\vert(?![a-zA-Z])|\||:)(.*)", re.DOTALL)
POINT = re.compile(r"[A-Za-z]\s*=([^=<>]*)")
OUTSIDE = re.compile(r"[A-Za-z]\s*\\notin(?![a-zA-Z])(.*)", re.DOTALL)
EXCLUDED = re.compile(r"\s*[A-Za-z]\s*\\ne(?![a-zA-Z])")
SIGN = re.compile(r"\\(?:pm|mp)(?![a-zA-Z])")
VARIABLE = re.compile(r"[A-Za-z](?:_\{\w+\})?")
FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\ne": r"\ne"}


def real_set(text: str, read: Read, depth: int = 0) -> Set | None:
    """The set that ``text`` describes, None if it describes none. ``read`` parses a value."""
    text = text.strip()
    if depth > 8:
        return None
    if OUTSIDE.search(text) and len(split(text, "[,;]")) > 1:  # x \in (0,9), x \notin {3}
        return _conditions(text, read, depth)
    text = MEMBER.sub("", text).strip() if RELATION.search(text) is None else text
    # "or" and "and" bind weaker than the relations, so they are split first.
    for separator, join in ((r"\\lor(?![a-zA-Z])", Union), (r"\\land(?![a-zA-Z])", Intersection)):
        pieces = split(text, separator)
        if len(pieces) > 1:
            return _joined([real_set(piece, read, depth + 1) for piece in pieces], join)
    # A condition, or several in a list.
    if RELATION.search(_outer(text)):
        return _conditions(text, read, depth)
    if point := POINT.fullmatch(text):  # x<3 or x=3
        value = _real(read(point[1])) if depth else None
        return None if value is None else FiniteSet(value)
    if outside := OUTSIDE.fullmatch(text):
        inside = real_set(outside[1], read, depth + 1)
        return None if inside is None else Reals - inside
    for separator, join in (
        (r"\\cup(?![a-zA-Z])", Union),
        (r"\\cap(?![a-zA-Z])", Intersection),
        (r"\\setminus(?![a-zA-Z])", _difference),
    ):
        pieces = split(text, separator)
        if len(pieces) > 1:
            return _joined([real_set(piece, read, depth + 1) for piece in pieces], join)
    if re.fullmatch(r"\\mathbb\{R\}", text):
        return Reals
    if re.fullmatch(r"\\emptyset", text):
        return EmptySet
    # What is left is in brackets: a set builder, a finite set, or an interval.
    opening, body, closing = enclosed(text)
    if opening == "\\{":
        builder = BUILDER.fullmatch(body)
        if builder and not RELATION.search(builder[1]):
            return _built(builder[1].strip(), builder[2].strip(), read, depth)
        if RELATION.search(_outer(body)):  # {x>2}
            return real_set(body, read, depth + 1)
        values = [_real(read(value)) for piece in split(body, "[,;]") for value in _signed(piece)]
        return None if None in values else FiniteSet(*values)
    ends = [_real(read(piece)) for piece in split(body, "[,;]")] if opening else []
    if len(ends) != 2 or None in ends or not ends[0] <= ends[1]:
        return None
    return Interval(*ends, opening == "(", closing == ")")


def _outer(text: str) -> str:
    """``text`` without the contents of braces."""
    return re.sub(r"\\\{.*\\\}", "", text)


def _joined(parts: list[Set | None], join: Callable[..., Set]) -> Set | None:
    return None if None in parts else join(*parts)


def _difference(first: Set, *others: Set) -> Set:
    for other in others:
        first = first - other
    return first


def _built(variable: str, condition: str, read: Read, depth: int) -> Set | None:
    r"""``\{x \in A \mid condition\}``."""
    name, *within = split(variable, r"\\in(?![a-zA-Z])")
    if not VARIABLE.fullmatch(name):
        return None
    solutions = real_set(condition, read, depth + 1)
    if solutions is None or not within:
        return solutions
    return _joined([solutions, real_set(within[0], read, depth + 1)], Intersection)


def _conditions(text: str, read: Read, depth: int) -> Set | None:
    """Conditions in a list hold together, ``2<x<9, x \\ne 3``; if their intersection is empty they are cases."""
    pieces = split(text, "[,;]")
    # x \ne 1, 2 excludes both values.
    for place, piece in enumerate(pieces[1:], 1):
        before = EXCLUDED.match(pieces[place - 1])
        if before and not RELATION.search(piece) and not enclosed(piece)[0]:
            pieces[place] = before.group() + piece
    sets = [
        _condition(piece, read) if RELATION.search(_outer(piece)) else real_set(piece, read, depth + 1)
        for piece in pieces
    ]
    if None in sets:
        return None
    together = Intersection(*sets)
    return Union(*sets) if len(sets) > 1 and together.is_empty else together


def _condition(text: str, read: Read) -> Set | None:
    """The set of ``a < x \\le b``, ``|x| < 3`` or ``x \\ne 5`` in one variable. A list after ``\\ne`` is not read."""
    sides = RELATION.split(text)
    signs, terms = sides[1::2], [side.strip() for side in sides[::2]]
    if len(signs) == 1 and not terms[0]:  # \ne 5
        terms[0] = "x"
    if len(signs) > 2 or not all(terms):
        return None
    # A chain of relations around one variable; any other condition goes to sympy.
    variable = [place for place, term in enumerate(terms) if VARIABLE.fullmatch(term)]
    if len(variable) != 1:
        return _solved(text, read)
    # Each relation bounds the variable from one side.
    bounds = []
    for place, sign in enumerate(signs):
        left, right = place, place + 1
        if variable[0] not in (left, right):
            return None
        term = terms[right if variable[0] == left else left]
        others = [_real(read(value)) for value in (_signed(term) if sign == r"\ne" else [term])]
        if None in others:
            return None
        bounds += [_half_line(sign if variable[0] == left else FLIPPED[sign], other) for other in others]
    return Intersection(*bounds)


def _signed(text: str) -> list[str]:
    r"""Both values of ``\pm 1``."""
    return [SIGN.sub(sign, text) for sign in "+-"] if SIGN.search(text) else [text]


def _half_line(sign: str, bound: Expr) -> Set:
    if sign == r"\ne":
        return Reals - FiniteSet(bound)
    if sign in ("<", r"\le"):
        return Interval(-oo, bound, True, sign == "<")
    return Interval(bound, oo, sign == ">", True)


def _solved(text: str, read: Read) -> Set | None:
    """The solutions of any other condition in one variable, found by sympy."""
    relation = read(text)
    if not hasattr(relation, "as_set") or len(getattr(relation, "free_symbols", ())) != 1:
        return None
    solutions = relation.as_set()
    return solutions if isinstance(solutions, Set) else None


def _real(value: Any) -> Expr | None:
    if not isinstance(value, Expr) or value.free_symbols:
        return None
    return value if value.is_extended_real else None


def same_set(one: Set, other: Set) -> bool:
    """Whether two sets have the same members; end points are compared by value."""
    if one == other:
        return True
    return bool((one - other).is_empty) and bool((other - one).is_empty)
