"""Decides whether an output equals the expected one, by EvalPlus' rules, on the trusted side.

The rules are those of ``evalplus.eval.unsafe_execute`` (0.3.1) with its special oracles, except for its errors:
HumanEval/32 can pass; a tolerance set by one test does not apply to later tests; special oracles get the inputs
unchanged by the program; shapes must be equal, not merely broadcastable.

NumPy scalars and arrays are compared by NumPy's ``==``, as in EvalPlus: ``np.int64(3)`` equals 3 and ``np.array([3])``
equals ``[3]``, while an array of several elements has no truth value and fails. They get no tolerance, because EvalPlus
applies one only to values of the same type.

The size of untrusted values is limited before they are built, in proportion to the expected value: see
:func:`harness.sandbox.values.loads`.
"""

from __future__ import annotations

from collections import deque
from itertools import chain, islice
from numbers import Number
from typing import Any

from harness.grading.code.problem import CodeProblem
from harness.sandbox import arrays
from harness.sandbox.arrays import Several
from harness.sandbox.transcript import printable
from harness.sandbox.values import Digest, Iterated, loads

FLOAT_ATOL = 1e-6
RTOL = 1e-7
SPARE_MEMBERS = 1000  # members of sets and dicts that are built beyond the number in the expected value


def accepts(problem: CodeProblem, arguments: str, expected: bytes, got: bytes) -> bool:
    """Whether ``got`` is right if the canonical solution returned ``expected``; all three are encoded values.

    Raises ValueError if ``got`` is no encoded value.
    """
    want = loads(expected)
    # Some problems compare members only, so a set may be returned for an expected list.
    listed = len(want) if isinstance(want, list | tuple) else 0
    have = loads(got, most=SPARE_MEMBERS + members(want) + listed)
    # Values too large to send compare by digest.
    if isinstance(want, Digest) or isinstance(have, Digest):
        return type(want) is type(have) and want == have
    import numpy

    try:
        with numpy.errstate(all="ignore"):
            return bool(_accepts(problem, arguments, want, have))
    except (TypeError, ValueError, OverflowError, RecursionError, ZeroDivisionError):
        return False  # the rule does not apply to this output; EvalPlus fails it by the same exception


def members(value: Any) -> int:
    """The total number of members of the sets and dicts in ``value``."""
    if isinstance(value, list | tuple | deque):
        return sum(map(members, value))
    if isinstance(value, set | frozenset):
        return len(value) + sum(map(members, value))
    if isinstance(value, dict):
        return len(value) + sum(map(members, chain(value, value.values())))
    return 0


def _accepts(problem: CodeProblem, arguments: str, want: Any, have: Any) -> bool:
    import numpy
    from evalplus.eval import _special_oracle as oracles

    entry_point, atol = problem.entry_point, problem.atol
    if problem.task_id == "HumanEval/32":
        return abs(oracles._poly(*loads(arguments), have)) <= atol
    # Special oracles of MBPP, as in EvalPlus.
    from_mbpp = problem.task_id.startswith("Mbpp/")
    if from_mbpp and entry_point in oracles.MBPP_OUTPUT_NOT_NONE_TASKS:
        found = have if isinstance(have, bool) else have is not None
        return found == (want is not None)
    if from_mbpp and entry_point in oracles.MBPP_OUTPUT_SET_EQ_TASKS:
        if isinstance(have, Several):  # EvalPlus evaluates out == exp first, which raises for other shapes
            numpy.broadcast_shapes(have.array.shape, numpy.shape(want))
        exact = _same_members(want, have)
    else:
        exact = have == want
        if from_mbpp and entry_point == "surface_Area":
            exact = exact or abs(have - oracles._surface_Area(*loads(arguments))) <= atol
        elif from_mbpp and entry_point == "digit_distance_nums":
            exact = exact or have == oracles._digit_distance_nums(*loads(arguments))
    if exact:
        return True
    # Without an exact match, floats get EvalPlus' default tolerance.
    if atol == 0 and _floats(want):
        atol = FLOAT_ATOL
    return atol != 0 and _close(want, have, atol)


def _same_members(want: Any, have: Any) -> bool:
    """``set(want) == set(have)``, with a hash table of the expected members only."""
    places = {member: place for place, member in enumerate(set(want))}
    found = {places.get(member, -1) for member in have}
    return -1 not in found and len(found) == len(places)


def _floats(value: Any) -> bool:
    if isinstance(value, list | tuple) and value:
        return all(isinstance(item, float) for item in value)
    return isinstance(value, float)


def _close(want: Any, have: Any, atol: float) -> bool:
    import numpy

    if type(want) is not type(have):
        return False
    have = _unpacked(have)
    if not _alike(want, have):
        return False
    return bool(numpy.allclose(have, want, rtol=RTOL, atol=atol))


def _unpacked(value: Any) -> Any:
    """``value`` with its arrays as lists."""
    if isinstance(value, list | tuple):
        return [_unpacked(item) for item in value]
    if isinstance(value, Several):
        return value.array.tolist()
    return value.tolist() if arrays.belongs(type(value)) else value


def _alike(want: Any, have: Any) -> bool:
    """Whether two nested lists of numbers have the same shape; checked before NumPy converts them."""
    if isinstance(want, list | tuple):
        return (
            isinstance(have, list | tuple)
            and len(want) == len(have)
            and all(map(_alike, want, have))
            and len({len(item) if isinstance(item, list | tuple) else -1 for item in have}) <= 1
        )
    return isinstance(want, Number) and isinstance(have, Number)


def show(text: bytes | str, limit: int = 80) -> str:
    """An encoded value for the reason of a verdict: on one line of at most ``limit`` characters."""
    value = loads(text, most=SPARE_MEMBERS)
    if isinstance(value, Digest):
        shown = f"a large {value}"
    elif isinstance(value, Iterated):
        shown = "an iterator"
    else:
        shown = _shown(value, limit)
    shown = printable(shown)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def _shown(value: Any, limit: int) -> str:
    if isinstance(value, list | tuple | deque) and len(value) > limit:
        value = type(value)(islice(value, limit))
    try:
        return repr(value)
    except ValueError:  # an int with more digits than CPython converts
        return "a huge number"
