"""When an answer equals the gold: ordered where the gold is ordered, exact where math-verify rounds.

This runs only in the worker processes of :mod:`harness.grading.maths.pool`, whose limits end it: what a model
wrote may take for ever, or all memory, to parse and simplify.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from functools import lru_cache
from typing import Any

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify
from sympy import Expr, Float, N, Rational, Symbol

from harness.grading.maths.answer import THOUSANDS, Answer, clean, literal, nesting, read, readings, split
from harness.grading.maths.units import conversion, named, out_of_text, take_unit

RELATIVE = 1e-5  # math-verify rounds to 6 decimals, and so cannot tell 0.0000672 from 0.0000671
DEEPEST = 24  # brackets in brackets; the time of math-verify's parser doubles with each few
UNDERFLOW = Float("1e-40")  # what evaluating an exact zero may leave
NAME = re.compile(r"(\\?[A-Za-z]+)(?:\s*_\s*(?:\w|\{[^{}]*\}))?\s*(?:\(\s*([A-Za-z])\s*\))?|\\angle[A-Za-z_{}\d ]+")
BASED = re.compile(r"(-?\d+)\s*_\s*\{?\s*(\d{1,2})\s*\}?", re.ASCII)
SETS = re.compile(r"[<>]|\\(?:le|ge|lt|gt|setminus|mathbb)(?![a-zA-Z])")
# Units are off because the library counts single letters among them: 6m would become 6.
LATEX = LatexExtractionConfig(
    boxed_match_priority=0,
    normalization_config=NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="last"
    ),
)


def equal(gold: Mapping[str, Any], text: str) -> bool:
    """Whether the box content ``text`` answers ``gold``, the fields of a harness.grading.maths.task.Gold."""
    target = clean(gold["text"])
    if not gold["several"] and THOUSANDS.fullmatch(target):
        target = target.replace(",", "")
    expected = read(target)
    return any(_same(expected, answer, gold) for answer in readings(text))


def _same(gold: Answer, answer: Answer, rules: Mapping[str, Any]) -> bool:
    if gold.kind == "value" and answer.kind == "value":
        return _same_value(gold.text, answer.text, rules)
    if gold.kind == "value" and answer.kind == "list" and len(answer.parts) == 1:  # {27}
        return _same(gold, answer.parts[0], rules)
    listed = gold.kind == answer.kind == "list" or (gold.kind == "union" and answer.kind in {"union", "list"})
    if listed and _same_any_order(gold, answer, rules):
        return True
    if gold.kind == answer.kind and gold.kind in {"tuple", "interval"}:
        return gold.brackets == answer.brackets and _same_in_order(gold, answer, rules)
    if gold.kind == "tuple" and answer.kind == "list":  # 1,2 for (1,2), but neither {1,2} nor an interval
        bare = not answer.text.startswith("\\{") and not rules["interval"] and "\\infty" not in gold.text
        return bare and _same_in_order(gold, answer, rules)
    return _same_as_sets(gold, answer)


def _same_in_order(gold: Answer, answer: Answer, rules: Mapping[str, Any]) -> bool:
    return len(gold.parts) == len(answer.parts) and all(
        _same(g, a, rules) for g, a in zip(gold.parts, answer.parts, strict=True)
    )


def _same_any_order(gold: Answer, answer: Answer, rules: Mapping[str, Any]) -> bool:
    left = list(answer.parts)
    if len(left) != len(gold.parts):
        return False
    for wanted in gold.parts:
        match = next((part for part in left if _same(wanted, part, rules)), None)
        if match is None:
            return False
        left.remove(match)
    return True


def _same_as_sets(gold: Answer, answer: Answer) -> bool:
    """``x > 2`` for ``(2,\\infty)``, and unions cut differently; never a set of values for an interval."""
    described = {"union", "interval", "tuple"}
    if gold.kind == answer.kind == "union" or (
        {gold.kind, answer.kind} <= {"value", *described}
        and any(SETS.search(side.text) for side in (gold, answer) if side.kind == "value")
    ):
        return _equivalent(gold.text, answer.text)
    return False


def _same_value(gold: str, answer: str, rules: Mapping[str, Any]) -> bool:
    if re.search(r"\d \d", answer):  # math-verify would add them
        return False
    if gold.replace(" ", "") == answer.replace(" ", ""):
        return True
    if SETS.search(gold) or SETS.search(answer):
        return _equivalent(gold, answer)
    (name, variable, target), (other, parameter, side) = _assignment(gold), _assignment(answer)
    if name is None and len(split(gold, "=")) > 1:
        return _equivalent(gold, answer)
    if name is not None and other is None and len(split(answer, "=")) > 1:
        return _equivalent(gold, answer)
    if name and other and len(name) == len(other) == 1 and name != other:
        return False
    renamed = (parameter, variable) if parameter and variable and parameter != variable else None
    return _same_quantity(target, side, rules, renamed)


def _assignment(text: str) -> tuple[str | None, str | None, str]:
    """``f(x) = … = 2x`` as ``("f", "x", "2x")``; the name is None where the left side is not one."""
    sides = split(text, "=")
    found = NAME.fullmatch(sides[0]) if len(sides) > 1 else None
    return (found[1] or "", found[2], sides[-1]) if found else (None, None, sides[-1])


def _same_quantity(gold: str, answer: str, rules: Mapping[str, Any], renamed: tuple[str, str] | None) -> bool:
    word = re.fullmatch(r"\\text\s*\{(.*)\}", gold)
    if word and _letters(word[1]) == _letters(answer.removeprefix("\\text")):
        return True
    if rules["in_text"]:
        gold, answer = out_of_text(gold), out_of_text(answer)
    if word and gold.startswith("\\text"):
        return False
    (gold, gold_unit), (answer, unit) = take_unit(gold), take_unit(answer)
    gold_unit = gold_unit or named(rules["unit"])
    gold, answer = _in_base_ten(gold, answer)
    if "%" in {gold_unit, unit} and gold_unit != unit:
        scales = [(1, 100) if unit == "%" else (100, 1)]
        if not (unit and gold_unit) and _exceeds_one(gold):  # a missing sign is forgiven, except to a share
            scales.append((1, 1))
    else:
        scales = [conversion(unit, gold_unit)]
    return any(scale and _same_number(gold, answer, scale, rules["tolerance"], renamed) for scale in scales)


def _exceeds_one(latex: str) -> bool:
    value = _parse(latex)
    return isinstance(value, Expr) and bool(value.is_number) and bool(abs(N(value)) > 1)


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())


def _in_base_ten(gold: str, answer: str) -> tuple[str, str]:
    """Numbers such as ``52_8`` by value (math-verify drops the base); a missing base is the gold's."""
    wanted, given = BASED.fullmatch(gold), BASED.fullmatch(answer)
    if not wanted and not given:
        return gold, answer
    base = wanted[2] if wanted else "10"
    texts = []
    for text, found in ((gold, wanted), (answer, given)):
        digits, radix = (found[1], int(found[2])) if found else (text, int(base))
        try:
            texts.append(str(int(digits, radix)))
        except ValueError:
            texts.append(text)
    return texts[0], texts[1]


def _same_number(
    gold: str,
    answer: str,
    scale: tuple[int, int],
    tolerance: float | None,
    renamed: tuple[str, str] | None,
) -> bool:
    """Whether ``gold`` equals ``answer`` times the fraction ``scale``, within an absolute ``tolerance``."""
    exact, given = literal(gold), literal(answer)
    if exact is not None and given is not None and tolerance is None:
        return exact == given * Fraction(*scale)
    wanted, found = _parse(gold), _parse(answer)
    if wanted is None or found is None:
        return False
    if renamed:
        one, other = (Symbol(name, real=True) for name in renamed)
        found = found.subs({one: other, other: one}, simultaneous=True)
    if scale != (1, 1):
        found = found * Rational(*scale)
    if tolerance is not None and isinstance(wanted, Expr) and isinstance(found, Expr):
        return bool(abs(N(wanted - found)) <= tolerance * (1 + RELATIVE))
    return verify(wanted, found, timeout_seconds=None) and not _far_apart(wanted, found)


def _equivalent(gold: str, answer: str) -> bool:
    """Equations, inequalities and sets, as math-verify compares them."""
    wanted, found = _parse(gold), _parse(answer)
    return (
        wanted is not None
        and found is not None
        and verify(wanted, found, allow_set_relation_comp=True, timeout_seconds=None)
    )


def _far_apart(gold: Any, answer: Any) -> bool:
    """Whether two numbers differ by more than a relative :data:`RELATIVE`."""
    if not (isinstance(gold, Expr) and isinstance(answer, Expr) and gold.is_number and answer.is_number):
        return False
    left, right = N(gold, 20), N(answer, 20)
    return bool(abs(left - right) > RELATIVE * max(abs(left), abs(right)) + UNDERFLOW)


@lru_cache(maxsize=256)
def _parse(latex: str) -> Any:
    """The sympy object of one value, or None where math-verify reads none."""
    if not 0 <= nesting(latex) <= DEEPEST:
        return None
    found = parse(f"\\boxed{{{latex}}}", [LATEX], fallback_mode="no_fallback", parsing_timeout=None)
    return found[0] if found else None
