"""The arguments of the Python interface, as a notebook may give them: numpy's numbers, paths, one name for a list.

A value that is not usable raises BadInput in one sentence, before anything slow is imported.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from harness import registry
from harness.errors import BadInput
from harness.leaderboard import COMPUTE, DEFAULT_UNIT, UNITS, VIEWS
from harness.types import SEEDS

Names = str | Path | Iterable[str | Path]


def names(given: Names, what: str) -> list[str]:
    """One name or several as a list; a string may hold several separated by commas, as on the command line."""
    several = registry.parts(given) if isinstance(given, str) else [given] if isinstance(given, Path) else given
    if not isinstance(several, Iterable) or isinstance(several, (Mapping, bytes)):
        raise BadInput(f"{what}={given!r:.80} is not a name; give a name, the path of a file, or a list of them")
    listed = list(several)
    if not listed:
        raise BadInput(f"{what} is empty; give at least one name")
    for name in listed:
        if not isinstance(name, (str, Path)) or not str(name).strip():
            raise BadInput(f"{what}: {name!r:.80} is not a name; give a name, or the path of the file that has it")
    return [str(name) for name in listed]


def seeds(given: int | Iterable[int]) -> list[int]:
    """One training seed or several as a list."""
    single = _whole(given) is not None
    if not single and (not isinstance(given, Iterable) or isinstance(given, Mapping)):
        raise BadInput(f"seeds={given!r:.80} is not a whole number; give one, or a list of them")
    listed = [given] if single else list(given)
    if not listed:
        raise BadInput("no seed given; leave seeds out, or name one")
    numbers = []
    for seed in listed:
        number = None if isinstance(seed, bool) else _whole(seed)
        if number is None or number not in SEEDS:  # a range would be searched for None
            raise BadInput(f"seeds: {seed!r:.80} is not a whole number from 0 to {SEEDS[-1]}")
        numbers.append(number)
    return numbers


def _whole(value: Any) -> int | None:
    """A whole number of Python or numpy; None for anything else."""
    try:
        return operator.index(value)
    except TypeError:
        return None


def word(what: str, value: Any, is_a: str, *kinds: type) -> None:
    """Raises BadInput for a given value that is neither text nor, if allowed, a path."""
    if value is not None and not isinstance(value, kinds or (str, os.PathLike)):
        raise BadInput(f"{what}={value!r:.80} is not {is_a}")


def text(value: str | Path | None) -> str | None:
    """A name or a path as the command line has it."""
    return None if value is None else str(value)


def view(kind: str, cost: str, anchor: str | None = None) -> None:
    """Raises BadInput for an unknown view or unit, and for what only equal compute reads."""
    _one_of("view", kind, VIEWS)
    _one_of("cost", cost, UNITS)
    for what, given in (("anchor", anchor is not None), ("cost", cost != DEFAULT_UNIT)):
        if given and kind != COMPUTE:
            raise BadInput(f'{what} is for view="compute"; give that, too')


def _one_of(name: str, value: str, known: Collection[str]) -> None:
    if value not in known:
        raise BadInput(f"{name}={value!r}: choose from {', '.join(known)}")
