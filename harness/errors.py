"""The two kinds of error that a user sees.

The command line turns each into one line on stderr: :class:`BadInput` ends with exit code 2 (nothing was
written; fix the input), :class:`RunFailed` with exit code 1 (the work itself failed).
"""

import difflib
from collections.abc import Iterable


class BadInput(ValueError):
    """The request cannot be carried out as given. The message says what is wrong, where, and how to fix it."""


class RunFailed(RuntimeError):
    """A valid request failed while it ran. The message names the stage and what is kept."""


def unknown(kind: str, name: str, known: Iterable[str]) -> BadInput:
    """The error for an unknown name; it suggests the most similar known names."""
    names = sorted(known)
    suggestions = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or names
    return BadInput(f"unknown {kind} {name!r}; did you mean {', '.join(suggestions)}?")
