"""Attributes of a user's class that look like a part of its contract and are none: Python ignores them in silence."""

from __future__ import annotations

import ast
import difflib
import inspect
from pathlib import Path

from harness import error_location
from harness.errors import BadInput

CUTOFF = 0.85  # of difflib's ratio: one letter of seven


def refuse(found: type, contract: type, word: str, of_instances: tuple[str, ...]) -> None:
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
