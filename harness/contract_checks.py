"""Checks that the contracts of methods, tasks and metrics share: misspelt attributes, values that a record can keep.

Python ignores an attribute that looks like a part of a contract but is not. A record keeps plain JSON of bounded size;
both are asked before any work.
"""

from __future__ import annotations

import ast
import difflib
import inspect
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import error_location
from harness.error_location import describe
from harness.errors import BadInput

CUTOFF = 0.85  # of difflib's ratio: one letter of seven


def refuse_misspelt(found: type, contract: type, word: str, of_instances: tuple[str, ...]) -> None:
    """Raises BadInput for an attribute that is one slip away from a part of ``contract`` and that nothing reads.

    ``of_instances`` are the names that the harness sets on every instance: a class attribute of that name is lost.
    """
    parts = {name for name in dir(contract) if not name.startswith("_")}
    lower = {part.lower(): part for part in parts}
    for cls in found.__mro__:
        if cls is contract or cls.__module__.partition(".")[0] == "harness":
            continue
        used = None
        for name in [n for n in vars(cls) if not n.startswith("_") and n not in parts]:
            near = difflib.get_close_matches(name.lower(), lower, n=1, cutoff=CUTOFF)
            lost = name in of_instances and not isinstance(vars(cls)[name], property)
            if not near or (name in of_instances and not lost):
                continue
            used = _read_names(cls) if used is None else used
            if lost or name not in used:
                raise BadInput(
                    f"{error_location.of(cls, name)}: {name} is no part of a {word}, and nothing reads it; did you "
                    f"mean {lower[near[0]]}? (a helper of your own: _{name})"
                )


def _read_names(cls: type) -> set[str]:
    """The names and attributes that the file of a class reads."""
    try:
        tree = ast.parse(Path(inspect.getfile(cls)).read_text("utf-8"))
    except (TypeError, OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return set()
    loads = [n for n in ast.walk(tree) if isinstance(n, ast.Attribute | ast.Name) and isinstance(n.ctx, ast.Load)]
    return {n.attr if isinstance(n, ast.Attribute) else n.id for n in loads}


LONGEST = 100_000  # characters of one value; a record is read up to 4 MB
_DEEPEST = 16


def unrecordable(value: Any) -> str:
    """Why a record cannot keep ``value``; empty where it can."""
    try:
        fault = _reason(value, _DEEPEST)
        if not fault and len(json.dumps(value)) > LONGEST:
            return f"takes more than {LONGEST:,} characters"
    except (ValueError, TypeError, RecursionError, OverflowError) as error:  # digits without end, a key of another type
        return f"cannot be written as JSON ({str(error)[:80]})"
    return fault


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
