"""The two kinds of error that a user sees.

The command line turns each into one line on stderr: :class:`BadInput` ends with exit code 2 (nothing was
written; fix the input), :class:`RunFailed` with exit code 1 (the work itself failed).
"""

import difflib
from collections.abc import Iterable

PACKAGE = "reasoning-distillation-harness"
LISTED = 50  # the most names that an error lists
SUGGESTED = 10  # the most names that it suggests without one being similar


class BadInput(ValueError):
    """The request cannot be carried out as given. The message says what is wrong, where, and how to fix it."""


class NotHere(BadInput):
    """Something that the work needs is not on this machine and could not be fetched, so it was not checked."""


class RunFailed(RuntimeError):
    """A valid request failed while it ran. The message names the stage and what is kept."""


def install(extra: str) -> str:
    """The command that installs an optional part of the harness, an extra of ``pyproject.toml``."""
    return f"pip install '{PACKAGE}[{extra}]'"


def unknown(kind: str, name: str, known: Iterable[str]) -> BadInput:
    """The error for an unknown name; it suggests the most similar known names, else lists some of them."""
    names = sorted(known)
    similar = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if not similar and len(names) > LISTED:  # records of a folder: hundreds
        return BadInput(f"unknown {kind} {name!r}; {len(names)} are known, such as {', '.join(names[:3])}")
    if not similar and len(names) > SUGGESTED:
        return BadInput(f"unknown {kind} {name!r}; known: {', '.join(names)}")
    return BadInput(f"unknown {kind} {name!r}; did you mean {', '.join(similar or names)}?")
