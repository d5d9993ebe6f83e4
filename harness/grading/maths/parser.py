"""Parses values into sympy objects with math-verify's parser, and records the errors of the parser.

Runs only in the worker processes of :mod:`harness.grading.maths.pool`, under their limits: parsing and simplifying text
written by a model may take unbounded time and memory.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from latex2sympy2_extended import NormalizationConfig, normalize_latex
from math_verify import verify
from math_verify.parser import parse_latex_cached
from sympy import Basic, Expr, Float, I, N, Symbol, UnevaluatedExpr
from sympy.core.function import AppliedUndef

from harness.grading.maths.brackets import nesting

RELATIVE = 1e-5  # largest relative difference; math-verify rounds to 6 decimals and confuses 0.0000672 and 0.0000671
EXACT = 1e-12  # relative rounding error of computing with decimals of 15 digits
DEEPEST = 24  # nested brackets; the parser takes exponential time in their depth
# ``units`` is off because the library takes single letters for units: 6m would become 6.
NORMALISED = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="last")

failures: dict[str, str] = {}  # text -> error of the parser in the current comparison; cleared by the worker


def parse(latex: str) -> Any:
    """The sympy object of one value, or None if it cannot be parsed; records the error in :data:`failures`."""
    value, failure = _parsed(latex)
    if failure:
        failures[latex] = failure
    return value


@lru_cache(maxsize=256)
def _parsed(latex: str) -> tuple[Any, str]:
    if not latex or not 0 <= nesting(latex) <= DEEPEST:
        return None, ""
    try:
        value = parse_latex_cached(normalize_latex(latex, config=NORMALISED))
        if isinstance(value, Basic):
            value = _plain(value)
        return value, ""
    except MemoryError:
        raise
    except Exception as error:  # the grammar and sympy raise many types of errors on text of a model
        return None, type(error).__name__


def _plain(value: Basic) -> Basic:
    """``value`` with ``\\gcd`` evaluated, and ``i`` as the imaginary unit if it is the only variable."""
    if value.has(UnevaluatedExpr):
        value = value.replace(lambda e: isinstance(e, UnevaluatedExpr), lambda e: e.args[0])
    letters = getattr(value, "free_symbols", set())
    if len(letters) == 1 and (letter := next(iter(letters))).name == "i":
        value = value.subs(letter, I)
    return value


def same_value(one: Any, other: Any, sets: bool = False) -> bool:
    """Whether math-verify finds two sympy objects equal and their values differ by no more than rounding."""
    if far_apart(one, other):
        return False
    if all(isinstance(side, Expr) and side.is_rational and not side.has(Float) for side in (one, other)):
        left, right = one.doit(), other.doit()
        if left.is_Rational and right.is_Rational:  # exactly: a small difference is one, as of 1/30! and 1/(30!+1)
            return left == right
    equal = verify(one, other, allow_set_relation_comp=sets, timeout_seconds=None, raise_on_error=False)
    return bool(equal) or _same_decimals(one, other)


def _same_decimals(one: Any, other: Any) -> bool:
    """Whether two numbers are equal up to the rounding of decimals, such as ``602*10^21`` and ``6.02*10^23``."""
    numbers = all(isinstance(side, Expr) and side.is_number for side in (one, other))
    if not numbers or not (one.has(Float) or other.has(Float)):
        return False
    left, right = approximately(one), approximately(other)
    return bool(abs(left - right) <= EXACT * max(abs(left), abs(right)))


def far_apart(one: Any, other: Any) -> bool:
    """Whether two numbers have a relative difference above :data:`RELATIVE`."""
    if not (isinstance(one, Expr) and isinstance(other, Expr) and one.is_number and other.is_number):
        return False
    left, right = approximately(one), approximately(other)
    if not (left.is_finite and right.is_finite):  # infinity is near to nothing
        return left != right
    return bool(abs(left - right) > RELATIVE * max(abs(left), abs(right)))


def approximately(number: Expr) -> Expr:
    """The numeric value of ``number``; 0 if it has no correct digit, as evaluating an exact zero can give."""
    value = N(number, 20)
    return value if not isinstance(value, Float) or value._prec > 1 else Float(0)


def multiplied(expression: Any, like: Any) -> Any:
    """``expression`` with ``n(2)`` read as ``2n`` if ``n`` is a variable in ``like``, not a function."""
    numbers = {letter.name: letter for letter in getattr(like, "free_symbols", ())}
    if not isinstance(expression, Expr) or not numbers:
        return expression
    return expression.replace(
        lambda e: isinstance(e, AppliedUndef) and len(e.args) == 1 and e.func.__name__ in numbers,
        lambda e: numbers[e.func.__name__] * e.args[0],
    )


def swapped(expression: Any, one: str, other: str) -> Any:
    """``expression`` with two variables exchanged."""
    left, right = Symbol(one, real=True), Symbol(other, real=True)
    return expression.subs({left: right, right: left}, simultaneous=True)
