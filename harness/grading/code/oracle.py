"""When an output counts as the expected one: EvalPlus' rules, applied outside the process of the program.

The rules are those of ``evalplus.eval.unsafe_execute`` (0.3.1), with its special oracles, except where it is
wrong: HumanEval/32 can pass; a tolerance taken for one test does not stay for the tests after it; a special
oracle sees the inputs as they were before the program could change them; shapes must agree and not merely
broadcast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness.grading.code.problem import CodeProblem
from harness.sandbox.values import Digest, Iterated, loads

FLOAT_ATOL = 1e-6
RTOL = 1e-7


def accepts(problem: CodeProblem, arguments: str, expected: bytes, got: bytes) -> bool:
    """Whether ``got`` is right where the canonical solution gave ``expected``; all three are texts of values.

    Raises ValueError when ``got`` is no text of a value.
    """
    want, have = loads(expected), loads(got)
    if isinstance(want, Digest) or isinstance(have, Digest):
        return type(want) is type(have) and want == have
    try:
        return _accepts(problem, arguments, want, have)
    except (TypeError, ValueError, OverflowError, RecursionError, ZeroDivisionError):
        return False  # the rule does not apply to such an output: EvalPlus fails it by the same exception


def _accepts(problem: CodeProblem, arguments: str, want: Any, have: Any) -> bool:
    from evalplus.eval import _special_oracle as oracles

    entry_point, atol = problem.entry_point, problem.atol
    if problem.task_id == "HumanEval/32":
        return abs(oracles._poly(*loads(arguments), have)) <= atol
    exact = want == have
    if problem.task_id.startswith("Mbpp/"):
        if entry_point == "surface_Area":
            exact = exact or abs(have - oracles._surface_Area(*loads(arguments))) <= atol
        elif entry_point == "digit_distance_nums":
            exact = exact or have == oracles._digit_distance_nums(*loads(arguments))
        elif entry_point in oracles.MBPP_OUTPUT_SET_EQ_TASKS:
            exact = set(have) == set(want)
        elif entry_point in oracles.MBPP_OUTPUT_NOT_NONE_TASKS:
            found = have if isinstance(have, bool) else have is not None
            exact = found == (want is not None)
    if exact:
        return True
    if atol == 0 and _floats(want):
        atol = FLOAT_ATOL
    return atol != 0 and _close(want, have, atol)


def _floats(value: Any) -> bool:
    if isinstance(value, list | tuple) and value:
        return all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def _close(want: Any, have: Any, atol: float) -> bool:
    import numpy

    if type(want) is not type(have) or numpy.shape(want) != numpy.shape(have):
        return False
    return bool(numpy.allclose(have, want, rtol=RTOL, atol=atol))


def show(text: bytes | str, limit: int = 80) -> str:
    """A value for a reason: short, on one line."""
    value = loads(text)
    if isinstance(value, Digest):
        shown = f"a large {value}"
    elif isinstance(value, Iterated):
        shown = "an iterator"
    else:
        shown = _shown(value, limit)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _shown(value: Any, limit: int) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) > limit:
        value = value[:limit]
    try:
        return repr(value)
    except ValueError:  # an int of more digits than CPython is willing to write
        return "a huge number"
