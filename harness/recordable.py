"""Whether a record can keep a value that user code gives: plain JSON of bounded size, asked before any work."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from harness.error_location import describe

LONGEST = 100_000  # characters of one value; a record is read up to 4 MB
_DEEPEST = 16


def reason(value: Any) -> str:
    """Why a record cannot keep ``value``; empty where it can."""
    try:
        said = _reason(value, _DEEPEST)
        if not said and len(json.dumps(value)) > LONGEST:
            return f"takes more than {LONGEST:,} characters"
    except (ValueError, TypeError, RecursionError, OverflowError) as error:  # digits without end, a key of another type
        return f"cannot be written as JSON ({str(error)[:80]})"
    return said


def _reason(value: Any, deeper: int) -> str:
    if value is None or isinstance(value, bool | int | str):
        return ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"holds {value}, which is no finite number"
    if not deeper:
        return "is nested too deep"
    if isinstance(value, list | tuple):
        return next(filter(None, (_reason(item, deeper - 1) for item in value)), "")
    if isinstance(value, Mapping):
        odd = [key for key in value if not isinstance(key, str)]
        if odd:
            return f"has the key {odd[0]!r:.40}; keys are text"
        return next(filter(None, (_reason(item, deeper - 1) for item in value.values())), "")
    return f"holds {describe(value)}; numbers, True, False, None, text, and lists and dicts of them can be recorded"
