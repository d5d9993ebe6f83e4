"""When an answer equals the gold: ordered where the gold is ordered, exact where math-verify rounds.

This runs only in the worker processes of :mod:`harness.grading.maths.pool`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from sympy import Expr, N, Rational

from harness.grading.maths import bases, clock
from harness.grading.maths.answer import CONDITION, Answer, assigned, literal, read, readings
from harness.grading.maths.brackets import split
from harness.grading.maths.notation import NAME, NO_FUNCTION, THOUSANDS, clean
from harness.grading.maths.parser import RELATIVE, multiplied, parse, same_value, swapped
from harness.grading.maths.sets import real_set, same_set
from harness.grading.maths.units import Unit, conversion, ordinal, out_of_text, take_unit, unit_of

# What a side of an equation may be called besides a name: P(X=2), |AB|, f(2), AB, \text{Area}, \overline{AB}, m+n.
CALLED = re.compile(
    r"\\text\s*\{[^{}]*\}(?:\s*\([^()]*\))?"
    rf"|{NO_FUNCTION}\\?[A-Za-z]+(?:_\{{[^{{}}]*\}})?\s*\(.*\)|\|[A-Z ]{{2,}}\||\[[A-Z ]{{3,}}\]|[A-Z]{{2,4}}"
    r"|\\(?:overline|widehat|vec|mathbb|Pr|hat|bar)\s*\{?[^{}=]*\}?(?:\s*[(\[].*[)\]])?|\\(?:triangle|angle)[A-Za-z ]+"
    r"|[A-Za-z](?:\s*\+\s*[A-Za-z])+"
)
CHOICE = re.compile(r"(?i)^[\s{(]*(?:choice|option|answer)\s+(?=\(?[A-E]\)?[\s})]*$)")


def equal(gold: Mapping[str, Any], text: str) -> bool:
    """Whether the box content ``text`` answers ``gold``, the fields of a harness.grading.maths.task.Gold."""
    target, text = clean(gold["text"]), clean(text)
    if not gold["several"] and THOUSANDS.fullmatch(target):
        target = target.replace(",", "")
    expected = read(target)
    return any(_same(expected, answer, gold) for answer in readings(text))


def _same(gold: Answer, answer: Answer, rules: Mapping[str, Any]) -> bool:
    if gold.kind == "value" and answer.kind == "value":
        return _same_value(gold.text, answer.text, rules)
    if answer.kind == "list" and len(answer.parts) == 1 and _may_be_member(gold, rules):  # {27}, {(2,1)}
        return _same(gold, answer.parts[0], rules)
    if gold.kind == "list" and gold.names:
        return _same_by_name(gold, answer, rules)
    # (1,2,3) for 1,2,3; but two numbers in brackets are a pair or an interval.
    if gold.kind == "list" and answer.kind == "tuple" and len(gold.parts) > 2:
        return _same_in_order(gold.parts, answer.parts, rules)
    cases = "\\land" not in answer.text or not CONDITION.search(answer.text)  # x<2 and x>3 is nothing
    listed = gold.kind == answer.kind == "list" or (gold.kind == "union" and answer.kind in {"union", "list"} and cases)
    if listed and _same_any_order(gold.parts, answer.parts, rules):
        return True
    if gold.kind == answer.kind and gold.kind in {"tuple", "interval"}:
        if gold.names and answer.names:
            return _same_by_name(gold, answer, rules)
        if gold.brackets == answer.brackets and _same_in_order(gold.parts, _by_name(answer), rules):
            return True
    # 1,2 for (1,2), but neither {1,2} nor an interval
    if gold.kind == "tuple" and answer.kind == "list" and not CONDITION.search(answer.text):
        bare = not answer.text.startswith("\\{") and not rules["interval"] and "\\infty" not in gold.text
        return bare and _same_in_order(gold.parts, _by_name(answer), rules)
    return _same_as_sets(gold, answer)


def _may_be_member(gold: Answer, rules: Mapping[str, Any]) -> bool:
    """Whether a set of one member stands for it: of a value or a point, not of an interval or of the empty set."""
    point = gold.kind == "tuple" and not rules["interval"] and "\\infty" not in gold.text
    return point or (gold.kind == "value" and gold.text.strip() != "\\emptyset")


def _by_name(answer: Answer) -> Sequence[Answer]:
    """The parts of ``y=2, x=1`` in the order of their names, in which a tuple lists them."""
    if not all(len(name) == 1 for name in answer.names) or not answer.names:
        return answer.parts
    return [part for _, part in sorted(zip(answer.names, answer.parts, strict=True), key=lambda pair: pair[0])]


def _same_by_name(gold: Answer, answer: Answer, rules: Mapping[str, Any]) -> bool:
    """``y=10, x=1000`` for ``x=1000, y=10``; values without names stand in the gold's order."""
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
    """Each part for one of the other side; an answer may repeat a member unless the gold repeats one itself."""
    left = list(answer)
    for wanted in gold:
        match = next((part for part in left if _same(wanted, part, rules)), None)
        if match is None:
            return False
        left.remove(match)
    if not left:
        return True
    repeats = any(_same(one, other, rules) for i, one in enumerate(gold) for other in gold[i + 1 :])
    return not repeats and all(any(_same(wanted, part, rules) for wanted in gold) for part in left)


def _same_as_sets(gold: Answer, answer: Answer) -> bool:
    """``x > 2`` for ``(2,\\infty)``, and unions cut differently; never a set of values for an interval."""
    described = {"union", "interval", "tuple"}
    conditions = CONDITION.search(gold.text) or CONDITION.search(answer.text)
    if gold.kind == "value" and not CONDITION.search(gold.text):
        return False
    if not conditions and not (gold.kind in described and answer.kind == "union"):
        return False
    wanted, found = (real_set(side.text, parse) for side in (gold, answer))
    if wanted is not None and found is not None:
        return same_set(wanted, found)
    both = {gold.kind, answer.kind} <= {"value", *described}
    return both and _equivalent(gold.text, answer.text)


def _same_value(gold: str, answer: str, rules: Mapping[str, Any]) -> bool:
    if re.search(r"\d \d", answer) or answer.count("'") != gold.count("'"):  # the parser would add, or drop, them
        return False
    if gold.replace(" ", "") == answer.replace(" ", ""):
        return True
    if CONDITION.search(gold) or CONDITION.search(answer):
        wanted, found = real_set(gold, parse), real_set(answer, parse)
        if wanted is not None and found is not None:
            return same_set(wanted, found)
        return _equivalent(gold, answer)
    wanted, given = clock.parts(gold), clock.parts(answer)
    if wanted or given:
        return wanted is not None and given is not None and clock.same(wanted, given)
    (name, variable, target), (other, parameter, values) = _equation(gold), _equation(answer)
    if name is None and len(target) > 1:
        return _equivalent(gold, answer)
    if name is not None and other is None and len(values) > 1:
        return _equivalent(gold, answer) or all(_same_quantity(target[-1], side, rules, None) for side in values)
    if name and other and len(name) == len(other) == 1 and name != other:
        return False
    renamed = (parameter, variable) if parameter and variable and parameter != variable else None
    return all(_same_quantity(target[-1], side, rules, renamed) for side in values)


def _equation(text: str) -> tuple[str | None, str | None, list[str]]:
    """``f(x) = … = 2x`` as ``("f", "x", […, "2x"])``, and so ``5 = x``; the name is None where no side is one."""
    sides = split(text, "=")
    if len(sides) == 1:
        return None, None, sides
    for ordered in (sides, sides[::-1]):
        found = NAME.fullmatch(ordered[0])
        if found:
            return found[1] or "", found[2], ordered[1:]
    return ("", None, sides[1:]) if CALLED.fullmatch(sides[0]) else (None, None, sides)


def _same_quantity(gold: str, answer: str, rules: Mapping[str, Any], renamed: tuple[str, str] | None) -> bool:
    word = re.fullmatch(r"\\text\s*\{(.*)\}", gold)
    if word and _letters(word[1]) == _letters(CHOICE.sub("", answer.removeprefix("\\text"))):
        return True
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
    gold_unit = gold_unit if gold_unit else _stated(rules["unit"]) if gold_unit is not None else None
    if {"%": 1} in (gold_unit, unit) and {} in (gold_unit, unit):
        scales = [(1, 100) if unit == {"%": 1} else (100, 1)]
        if _exceeds_one(gold):  # a missing sign is forgiven, except to a share
            scales.append((1, 1))
    else:
        scales = [conversion(unit, gold_unit)]
    return any(scale and _same_number(gold, answer, scale, rules["tolerance"], renamed) for scale in scales)


def _stated(unit: str) -> Unit:
    """The unit that a benchmark states beside its gold."""
    return {"%": 1} if unit.strip("\\ $") == "%" else (unit_of(unit)[1] or {}) if unit else {}


def _exceeds_one(latex: str) -> bool:
    value = parse(latex)
    return isinstance(value, Expr) and bool(value.is_number) and bool(abs(N(value)) > 1)


def _letters(text: str) -> str | None:
    """What of a word is compared; None for a formula."""
    return None if re.search(r"[+*/=^<>]", text) else re.sub(r"[^a-z0-9]", "", text.lower())


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
    wanted, found = parse(gold), parse(answer)
    if wanted is None or found is None:
        return False
    found = multiplied(found, wanted)
    if renamed:
        found = swapped(found, *renamed)
    if scale != (1, 1):
        found = found * Rational(*scale)
    if tolerance is not None and isinstance(wanted, Expr) and isinstance(found, Expr):
        return bool(abs(N(wanted - found)) <= tolerance * (1 + RELATIVE))
    return same_value(wanted, found)


def _equivalent(gold: str, answer: str) -> bool:
    """Equations, inequalities and sets, as math-verify compares them."""
    wanted, found = parse(gold), parse(answer)
    return wanted is not None and found is not None and same_value(wanted, found, sets=True)
