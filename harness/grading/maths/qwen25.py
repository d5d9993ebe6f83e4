r"""Compares answers by the rules of Qwen2.5-Math's grader, for scores comparable with those it publishes.

An independent implementation of ``extract_answer``, ``strip_string`` and ``math_equal`` in evaluation/parser.py and
evaluation/grader.py of QwenLM/Qwen2.5-Math at commit a45202b:

- the answer is the last ``boxed``, else the text after ``he answer is``, else the last number of the text;
- units, ``\text``, degree, percent and dollar signs are removed from it, and so is a short name before ``=``;
- two numbers are equal within a relative 1e-4, also if one is a hundred times the other;
- other answers are equal as text without brackets, part by part, or as formulas with values within the same 1e-4.

These rules accept many wrong answers (``50`` for ``0.5``), so they are not the default. Two differences remain: a
formula that sympy's LaTeX parser refuses is parsed by :mod:`.parser` (the original also evaluates it as Python), and of
numbers in words only single words are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from math import isclose
from typing import Any

from sympy import Basic, Equality, Expr, MatrixBase, N, simplify
from sympy.parsing.latex import parse_latex

from harness.grading.maths.parser import failures, parse
from harness.grading.maths.qwen25_reading import CHOICES, choice, stripped

RELATIVE = 1e-4
DEEPEST = 12  # nested lists, and nested brackets in a formula
MATRIX = re.compile(r"\\begin\{[pb]matrix\}(.*)\\end\{[pb]matrix\}", re.DOTALL)


def equal(gold: Mapping[str, Any], text: str) -> bool:
    """Whether ``text``, as :func:`harness.grading.maths.qwen25_reading.extract` gives it, answers ``gold``."""
    return _same(text, stripped(gold["text"]))


def equal_with_units(gold: Mapping[str, Any], text: str) -> bool:
    """As :func:`equal`, where the grader removes no units from answer and reference (Minerva Math)."""
    return _same(text, stripped(gold["text"], units=False))


def _same(answer: str, gold: str, depth: int = 0) -> bool:
    if answer.strip().lower() == gold.strip().lower() or (gold in CHOICES and choice(answer) == gold):
        return True
    # Numbers are equal within the tolerance, also as per cent of each other.
    answer_number, gold_number = number(answer), number(gold)
    if answer_number is not None and gold_number is not None:
        return any(
            isclose(scaled, answer_number, rel_tol=RELATIVE)
            for scaled in (gold_number / 100, gold_number, gold_number * 100)
        )
    answer, gold = answer.strip(), gold.strip()
    if not answer or depth > DEEPEST:
        return False
    # An answer as a matrix for a reference as a set: rewrite each set as a matrix.
    if "pmatrix" in answer and "pmatrix" not in gold:
        rows = (each.strip("{}").replace(",", "\\") for each in re.findall(r"\{.*,.*\}", gold))
        gold = ", ".join(f"\\begin{{pmatrix}}{row}\\end{{pmatrix}}" for row in rows)
    if _without_brackets(answer, gold) or _part_by_part(answer, gold, depth) or _row_by_row(answer, gold, depth):
        return True
    return _as_equations(answer, gold, depth) or _symbolic(answer, gold)


def number(text: str) -> float | None:
    """A decimal number without its commas; divided by 100 if it has a percent sign. None for other text."""
    text = text.replace(",", "")
    with suppress(ValueError):
        return float(text)
    if text.endswith("%"):
        with suppress(ValueError):
            return float(text[:-1].removesuffix("\\")) / 100
    return None


def _without_brackets(answer: str, gold: str) -> bool:
    square = answer.startswith("[") and answer.endswith("]") and not gold.startswith("(")
    round_ = answer.startswith("(") and answer.endswith(")") and not gold.startswith("[")
    if square or round_:
        answer, gold = answer.strip("[]()"), gold.strip("[]()")
    bare = str.maketrans("", "", "{}()")
    return answer.translate(bare).lower() == gold.translate(bare).lower()


def _part_by_part(answer: str, gold: str, depth: int) -> bool:
    if not all(re.match(r"[(\[].+[)\]]", side) for side in (answer, gold)):
        return False
    parts, gold_parts = answer[1:-1].split(","), gold[1:-1].split(",")
    return len(parts) == len(gold_parts) and all(_same(a, g, depth + 1) for a, g in zip(parts, gold_parts, strict=True))


def _row_by_row(answer: str, gold: str, depth: int) -> bool:
    tables = []
    for side in (answer, gold):
        match = MATRIX.fullmatch(side)
        if not match:
            return False
        tables.append([row.strip().split("&") for row in match[1].split("\\\\") if row.strip()])
    answer_rows, gold_rows = tables
    return [len(row) for row in answer_rows] == [len(row) for row in gold_rows] and all(
        _same(a, g, depth + 1)
        for row, other in zip(answer_rows, gold_rows, strict=True)
        for a, g in zip(row, other, strict=True)
    )


def _as_equations(answer: str, gold: str, depth: int) -> bool:
    """Compares equations by the difference of their sides; ignores a name of at most two characters before ``=``."""
    answer_sides, gold_sides = answer.split("="), gold.split("=")
    if len(answer_sides) == len(gold_sides) == 2:
        one, other = (f"{left.strip()} - ({right.strip()})" for left, right in (answer_sides, gold_sides))
        return _symbolic(one, other) or _symbolic(f"-({one})", other)
    if len(answer_sides) == 2 and len(gold_sides) == 1 and len(answer_sides[0].strip()) <= 2:
        return _same(answer_sides[1], gold, depth + 1)
    if len(gold_sides) == 2 and len(answer_sides) == 1 and len(gold_sides[0].strip()) <= 2:
        return _same(answer, gold_sides[1], depth + 1)
    return False


def _symbolic(answer: str, gold: str) -> bool:
    one, other = _read(answer), _read(gold)
    if one is None or other is None:
        return False
    for comparison in (_identical, _zero_difference, _same_equation, _close, _close_matrices):
        try:
            if comparison(one, other):
                return True
        except (TypeError, ValueError, AttributeError, NotImplementedError, ArithmeticError, KeyError) as error:
            failures[answer] = type(error).__name__  # sympy does not define this comparison for these types
    return False


@lru_cache(maxsize=256)
def _read(text: str) -> Any:
    """Parses ``text`` with sympy's LaTeX parser, else with :func:`.parser.parse`; None if both fail.

    sympy's parser silently ignores the rest of a text that it cannot parse: ``1,-2`` becomes 1, as in the original.
    """
    depth = deepest = 0
    for character in text:  # brackets may be unbalanced here: (x-1)(x+2) was stripped to x-1)(x+2
        depth = max(0, depth + (character in "([{") - (character in ")]}"))
        deepest = max(deepest, depth)
    if deepest > DEEPEST:
        return None
    try:
        return parse_latex(text.replace("\\\\", "\\"))
    except MemoryError:
        raise
    except Exception:  # the grammar raises many types of errors; the other parser decides then
        return parse(text)


def _identical(one: Any, other: Any) -> bool:
    return one == other or str(one) == str(other)


def _zero_difference(one: Any, other: Any) -> bool:
    if not (isinstance(one, Expr) and isinstance(other, Expr)):
        return False
    return bool(one.equals(other)) or simplify(one - other) == 0


def _same_equation(one: Any, other: Any) -> bool:
    if not (isinstance(one, Equality) and isinstance(other, Equality)):
        return False
    return bool(abs(one.lhs - one.rhs).equals(abs(other.lhs - other.rhs)))


def _close(one: Any, other: Any) -> bool:
    numbers = all(isinstance(side, Expr) and side.is_number and side.is_real for side in (one, other))
    return numbers and isclose(float(N(other)), float(N(one)), rel_tol=RELATIVE)


def _close_matrices(one: Any, other: Any) -> bool:
    if not (isinstance(one, MatrixBase) and isinstance(other, MatrixBase) and one.shape == other.shape):
        return False

    def rounded(entry: Basic) -> Basic:
        return round(entry, 3)

    return bool(one.applyfunc(rounded).equals(other.applyfunc(rounded)))
