"""Decides whether an answer equals the reference (the gold): in order if it is ordered, exactly if it is exact.

math-verify compares single values; structure, units, bases, names and times are compared here. Runs only in the worker
processes of :mod:`harness.grading.maths.pool`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from sympy import Expr, N, Rational, Symbol, cancel, fraction, simplify, together

from harness.grading.maths import bases
from harness.grading.maths.answer import CONDITION, Answer, assigned, literal, read, readings
from harness.grading.maths.brackets import split
from harness.grading.maths.notation import NAME, NO_FUNCTION, THOUSANDS, clean, for_matrix, for_value
from harness.grading.maths.parser import RELATIVE, multiplied, parse, same_value, swapped
from harness.grading.maths.sets import real_set, same_set
from harness.grading.maths.units import Unit, conversion, ordinal, out_of_text, take_unit, unit_of
from harness.grading.maths.words import LETTER_CHOICE, same_words

# Left sides that name a quantity besides plain names: P(X=2), |AB|, f(2), AB, \text{Area}, \overline{AB}, m+n.
CALLED = re.compile(
    r"\\text\s*\{[^{}]*\}(?:\s*\([^()]*\)|\s*[A-Z]+)?"
    rf"|{NO_FUNCTION}\\?[A-Za-z]+(?:_\{{[^{{}}]*\}})?\s*\(.*\)|\|[A-Z][A-Z ]*\||\[[A-Z ]{{3,}}\]|[A-Z]{{2,4}}"
    r"|\\det\s*\(?[A-Z]\)?|\\#\s*[A-Z]|E\s*\[.*\]|m\s*\\angle[A-Za-z ]+|\\(?:max|min|sum)(?![a-zA-Z]).*"
    r"|\\(?:overline|widehat|vec|mathbb|Pr|hat|bar)\s*\{?[^{}=]*\}?(?:\s*[(\[].*[)\]])?|\\(?:triangle|angle)[A-Za-z ]+"
)
SUM = re.compile(r"[A-Za-z](?:\s*\+\s*[A-Za-z])+")
DOTS = re.compile(r"\.{3}|\\(?:[lc]?dots[cmbio]?|ddots|vdots)(?![a-zA-Z])")
# Times of day, 6:15 p.m., and ratios, 3:2. The colon is not a division sign in either.
TIME = re.compile(r"(-?\d{1,6}(?:\s*:\s*-?\d{1,6})+)\s*(?:\\text\s*\{)?\s*([ap])?(?(2)\.?\s*m\.?)\s*\}?", re.IGNORECASE)
NOON = 12
DEGREE = {"degree": 1}
COORDINATES = {"x", "y"}
PRODUCT = re.compile("xy|yx")


def equal(gold: Mapping[str, Any], text: str) -> bool:
    """Whether the extracted answer ``text`` equals ``gold``, the fields of a harness.grading.maths.task.Gold."""
    target, text = clean(gold["text"]), clean(text)
    # Commas of a single reference number are thousands separators; an answer is read both ways below.
    if not gold["several"] and THOUSANDS.fullmatch(target):
        target = target.replace(",", "")
    expected = read(target)
    if expected.kind == "value":
        text = for_matrix(text) if "matrix}" in target else for_value(target, text)
    return any(_same(expected, answer, gold) for answer in readings(text))


def _same(gold: Answer, answer: Answer, rules: Mapping[str, Any]) -> bool:
    """Compares two structures; ``rules`` are the fields of the Gold."""
    if gold.kind == "value" and answer.kind == "value":
        return _same_value(gold.text, answer.text, rules)
    # A set of one member for its member: {27}, {(2,1)}, but not inside of a set, where {1} is not 1.
    if answer.kind == "list" and len(answer.parts) == 1 and _may_be_member(gold, rules):
        return not _is_set(answer.parts[0]) and _same(gold, answer.parts[0], rules)
    if gold.kind == "list" and gold.names:
        return _same_by_name(gold, answer, rules)
    # (1,2,3) for the list 1,2,3; two numbers in parentheses would be a pair or an interval instead.
    if gold.kind == "list" and answer.kind == "tuple" and len(gold.parts) > 2:
        return _same_in_order(gold.parts, answer.parts, rules)
    # Lists, and unions written as alternatives, in any order. "x<2 and x>3" is a contradiction, not a union.
    cases = "\\land" not in answer.text or not CONDITION.search(answer.text)
    listed = gold.kind == answer.kind == "list" or (gold.kind == "union" and answer.kind in {"union", "list"} and cases)
    if listed and _same_any_order(gold.parts, answer.parts, rules):
        return not _nested_otherwise(gold, answer)
    # Tuples and intervals of the same brackets, in order; named coordinates in any order.
    if gold.kind == answer.kind and gold.kind in {"tuple", "interval"}:
        if gold.names and answer.names:
            return _same_by_name(gold, answer, rules)
        if gold.brackets == answer.brackets and _same_in_order(gold.parts, _by_name(answer), rules):
            return True
    # 1,2 for the pair (1,2), but not {1,2}, and not for an interval.
    if gold.kind == "tuple" and answer.kind == "list" and not CONDITION.search(answer.text):
        bare = not answer.text.startswith("\\{") and not rules["interval"] and "\\infty" not in gold.text
        return bare and _same_in_order(gold.parts, _by_name(answer), rules)
    return _same_as_sets(gold, answer)


def _is_set(answer: Answer) -> bool:
    """Whether an answer is a list in braces."""
    return answer.kind == "list" and answer.text.startswith("\\{")


def _nested_otherwise(gold: Answer, answer: Answer) -> bool:
    """Whether a set has sets as members where the reference has none: ``{{1},{3}}`` for ``{1,3}``."""
    return _is_set(answer) and any(map(_is_set, answer.parts)) and not any(map(_is_set, gold.parts))


def _may_be_member(gold: Answer, rules: Mapping[str, Any]) -> bool:
    """Whether ``{gold}`` may be written for ``gold``: for a value or a point, not for an interval or an empty set."""
    point = gold.kind == "tuple" and not rules["interval"] and "\\infty" not in gold.text
    return point or (gold.kind == "value" and gold.text.strip() != "\\emptyset")


def _by_name(answer: Answer) -> Sequence[Answer]:
    """The parts of ``y=2, x=1`` sorted by name, the order of the coordinates in a tuple."""
    if not all(len(name) == 1 for name in answer.names) or not answer.names:
        return answer.parts
    return [part for _, part in sorted(zip(answer.names, answer.parts, strict=True), key=lambda pair: pair[0])]


def _same_by_name(gold: Answer, answer: Answer, rules: Mapping[str, Any]) -> bool:
    """Accepts ``y=10, x=1000`` for ``x=1000, y=10``; values without names must be in the reference's order."""
    if answer.kind not in {"list", "tuple"} or len(answer.parts) != len(gold.parts):
        return False
    if not answer.names:
        bare = answer.kind == "tuple" or not answer.text.startswith("\\{")
        return (
            bare
            and not any(assigned(part.text) for part in answer.parts)
            and _same_in_order(gold.parts, answer.parts, rules)
        )
    named = dict(zip(answer.names, answer.parts, strict=True))
    return all(
        name in named and _same(part, named[name], rules) for name, part in zip(gold.names, gold.parts, strict=True)
    )


def _same_in_order(gold: Sequence[Answer], answer: Sequence[Answer], rules: Mapping[str, Any]) -> bool:
    return len(gold) == len(answer) and all(_same(g, a, rules) for g, a in zip(gold, answer, strict=True))


def _same_any_order(gold: Sequence[Answer], answer: Sequence[Answer], rules: Mapping[str, Any]) -> bool:
    """Matches the parts one to one. An answer may repeat a member unless the reference repeats one itself."""
    # Take a different part of the answer for each part of the reference.
    left = list(answer)
    for wanted in gold:
        match = next((part for part in left if _same(wanted, part, rules)), None)
        if match is None:
            return False
        left.remove(match)
    if not left:
        return True
    # What is left of the answer must repeat members, and the reference must not.
    repeats = any(_same(one, other, rules) for i, one in enumerate(gold) for other in gold[i + 1 :])
    return not repeats and all(any(_same(wanted, part, rules) for wanted in gold) for part in left)


def _same_as_sets(gold: Answer, answer: Answer) -> bool:
    """Accepts ``x > 2`` for ``(2,\\infty)`` and other partitions of a union; never a set of values for an interval."""
    # A plain value or list is never a set of reals; only conditions, unions and intervals are compared as sets.
    described = {"union", "interval", "tuple"}
    conditions = CONDITION.search(gold.text) or CONDITION.search(answer.text)
    if gold.kind == "value" and not CONDITION.search(gold.text):
        return False
    if not conditions and not (gold.kind in described and answer.kind == "union"):
        return False
    gold_set, answer_set = (real_set(side.text, parse) for side in (gold, answer))
    if gold_set is not None and answer_set is not None:
        return same_set(gold_set, answer_set)
    both = {gold.kind, answer.kind} <= {"value", *described}
    return both and _equivalent(gold.text, answer.text)


def _same_value(gold: str, answer: str, rules: Mapping[str, Any]) -> bool:
    """Compares two values, conditions, times or equations."""
    # math-verify's parser would add numbers side by side, and drop primes and dots.
    primes = answer.count("'") == gold.count("'") or gold.startswith("\\text")  # it's even
    if re.search(r"\d \d", answer) or not primes:
        return False
    if bool(DOTS.search(answer)) != bool(DOTS.search(gold)):
        return False
    if gold.replace(" ", "") == answer.replace(" ", ""):
        return True
    if CONDITION.search(gold) or CONDITION.search(answer):
        gold_set, answer_set = real_set(gold, parse), real_set(answer, parse)
        if gold_set is not None and answer_set is not None:
            return same_set(gold_set, answer_set)
        return _equivalent(gold, answer)
    gold_time, answer_time = _time(gold), _time(answer)
    if gold_time or answer_time:
        return gold_time is not None and answer_time is not None and _same_time(gold_time, answer_time)
    # Equations: compare right sides, with the variable of a function renamed. Different one-letter names differ.
    (name, variable, target), (other, parameter, values) = _equation(gold), _equation(answer)
    if name is None and len(target) > 1:
        return _equivalent(gold, answer) or _same_curve(gold, answer)
    if name is not None and other is None and len(values) > 1:
        quantities = all(_same_quantity(target[-1], side, rules, None) for side in values)
        return quantities or _equivalent(gold, answer) or _same_curve(gold, answer)
    if name and other and _other_quantity(name, other):  # also xy = 6 for y = 6/x
        return variable is None and parameter is None and _same_curve(gold, answer)
    renamed = (parameter, variable) if parameter and variable and parameter != variable else None
    return all(_same_quantity(target[-1], side, rules, renamed) for side in values)


def _time(text: str) -> tuple[tuple[int, ...], str] | None:
    """``((6, 15), "p")`` for ``6:15 p.m.``; None if ``text`` is neither a time nor a ratio of whole numbers."""
    match = TIME.fullmatch(re.sub(r"^\\text\s*\{(.*)\}$", r"\1", text.strip()))
    return (tuple(map(int, match[1].split(":"))), (match[2] or "").lower()) if match else None


def _same_time(gold: tuple[tuple[int, ...], str], answer: tuple[tuple[int, ...], str]) -> bool:
    """Whether two times or ratios are equal. A reference without a.m. or p.m. accepts both."""
    if not gold[1]:
        return gold[0] == answer[0]
    return _of_day(*gold) == _of_day(*answer)


def _of_day(fields: tuple[int, ...], half: str) -> tuple[int, ...]:
    hour, *rest = fields
    if half:
        hour = hour % NOON + (NOON if half == "p" else 0)
    return hour, *rest


def _equation(text: str) -> tuple[str | None, str | None, list[str]]:
    """``f(x) = … = 2x`` as ``("f", "x", […, "2x"])``, also ``5 = x``. The name is None if neither end is a name."""
    sides = split(text, "=")
    if len(sides) == 1:
        return None, None, sides
    # The name may be on either end: x = 5 and 5 = x.
    for ordered in (sides, sides[::-1]):
        match = NAME.fullmatch(ordered[0])
        if match:
            return match[1] or "", match[2], ordered[1:]
    if SUM.fullmatch(sides[0]):
        return sides[0].replace(" ", ""), None, sides[1:]
    return ("", None, sides[1:]) if CALLED.fullmatch(sides[0]) else (None, None, sides)


def _other_quantity(name: str, other: str) -> bool:
    """Whether two names are of different quantities: two letters, or a sum or product of x and y and one of them."""
    kinds = [
        ("+" if "+" in one else "*" if PRODUCT.fullmatch(one) else "", sorted(one.replace("+", "")))
        for one in (name, other)
    ]
    if kinds[0] == kinds[1]:
        return False
    single = len(name) == len(other) == 1
    return single or (kinds[0][0] + kinds[1][0] != "" and bool({*kinds[0][1]} & {*kinds[1][1]}))


def _same_quantity(gold: str, answer: str, rules: Mapping[str, Any], renamed: tuple[str, str] | None) -> bool:
    """Compares words, ordinals, numbers in a base, then a number with its unit. ``renamed``: two variables to swap."""
    word = re.fullmatch(r"\\text\s*\{(.*)\}", gold)
    if word and same_words(word[1], answer):
        return True
    if LETTER_CHOICE.fullmatch(gold) and same_words(gold, answer):
        return True
    # An ordinal for its number: 12th for 12.
    number = ordinal(answer)
    if number is not None and literal(gold) is not None:
        return literal(gold) == literal(number)
    based = bases.same(gold, answer)
    if based is not None:
        return based
    gold, answer = out_of_text(gold), out_of_text(answer)
    if word and gold.startswith("\\text"):
        return False
    (gold, gold_unit), (answer, unit) = take_unit(bases.in_base_ten(gold)), take_unit(bases.in_base_ten(answer))
    # An angle in degrees, which its sign tells, for a reference in radians. Radians are not told, and not converted.
    if "\\pi" in gold and gold_unit == {} and unit == DEGREE:
        return _same_number(gold, f"({answer})\\cdot\\pi", (1, 180), rules["tolerance"], renamed)
    # A percent sign changes the value by 100; any other unit is converted, or assumed where one side has none.
    gold_unit = gold_unit if gold_unit else _stated(rules["unit"]) if gold_unit is not None else None
    if {"%": 1} in (gold_unit, unit) and {} in (gold_unit, unit):
        scales = [(1, 100) if unit == {"%": 1} else (100, 1)]
        if _exceeds_one(gold):  # 50 for 50 %, but not 0.5 for 0.5 %
            scales.append((1, 1))
    else:
        scales = [conversion(unit, gold_unit)]
    return any(scale and _same_number(gold, answer, scale, rules["tolerance"], renamed) for scale in scales)


def _stated(unit: str) -> Unit:
    """The unit that the benchmark's row states for its reference answer."""
    return {"%": 1} if unit.strip("\\ $") == "%" else (unit_of(unit)[1] or {}) if unit else {}


def _exceeds_one(latex: str) -> bool:
    value = parse(latex)
    return isinstance(value, Expr) and bool(value.is_number) and bool(abs(N(value)) > 1)


def _same_number(
    gold: str,
    answer: str,
    scale: tuple[int, int],
    tolerance: float | None,
    renamed: tuple[str, str] | None,
) -> bool:
    """Whether ``gold`` equals ``answer`` times the fraction ``scale``, within an absolute ``tolerance``."""
    # Two decimal numbers are compared exactly, as fractions; sympy would round them.
    gold_number, answer_number = literal(gold), literal(answer)
    if gold_number is not None and answer_number is not None and tolerance is None:
        return gold_number == answer_number * Fraction(*scale)
    gold_value, answer_value = parse(gold), parse(answer)
    if gold_value is None or answer_value is None:
        return False
    # The answer may write a product as a call, name its variable otherwise, or use another unit.
    answer_value = multiplied(answer_value, gold_value)
    if renamed:
        answer_value = swapped(answer_value, *renamed)
    if scale != (1, 1):
        answer_value = answer_value * Rational(*scale)
    if tolerance is not None and isinstance(gold_value, Expr) and isinstance(answer_value, Expr):
        return bool(abs(N(gold_value - answer_value)) <= tolerance * (1 + RELATIVE))
    return same_value(gold_value, answer_value)


def _same_curve(gold: str, answer: str) -> bool:
    """Whether two equations in x and y are one curve: solved for y, for x or for neither.

    Only for these coordinates. Of another formula the name on the left side is what the problem asks for.
    """
    sides = [[parse(side.strip()) for side in split(text, "=")] for text in (gold, answer)]
    for pair in sides:
        if len(pair) != 2 or not all(isinstance(side, Expr) for side in pair):
            return False
        if {letter.name for side in pair for letter in side.free_symbols} != COORDINATES:
            return False
    return _undo_each_other(*sides) or _same_zeros(*sides)


def _solved(sides: Sequence[Expr]) -> tuple[Symbol, Expr] | None:
    """``(y, f(x))`` of an equation ``y = f(x)``, in either order."""
    for name, value in (sides, sides[::-1]):
        if isinstance(name, Symbol) and name not in value.free_symbols:
            return name, value
    return None


def _undo_each_other(gold: Sequence[Expr], answer: Sequence[Expr]) -> bool:
    """Whether ``y = f(x)`` and ``x = g(y)`` have f(g(y)) = y and g(f(x)) = x for all real numbers."""
    of_gold, of_answer = _solved(gold), _solved(answer)
    if of_gold is None or of_answer is None or of_gold[0] == of_answer[0]:
        return False
    (one, there), (other, back) = of_gold, of_answer
    return simplify(there.subs(other, back) - one) == 0 and simplify(back.subs(one, there) - other) == 0


def _same_zeros(gold: Sequence[Expr], answer: Sequence[Expr]) -> bool:
    """Whether both equations have one numerator, up to a factor, and no denominator that takes points away."""
    tops = []
    for sides in (gold, answer):
        top, bottom = fraction(cancel(together(sides[0] - sides[1])))
        if not bottom.is_number and _solved(sides) is None:
            return False
        tops.append(top)
    ratio = cancel(tops[0] / tops[1]) if tops[1] != 0 else None
    return ratio is not None and bool(ratio.is_number) and ratio != 0


def _equivalent(gold: str, answer: str) -> bool:
    """Compares equations, inequalities and sets as math-verify does."""
    gold_value, answer_value = parse(gold), parse(answer)
    return gold_value is not None and answer_value is not None and same_value(gold_value, answer_value, sets=True)
