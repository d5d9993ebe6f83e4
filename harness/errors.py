"""What can go wrong, in the two kinds that a user must tell apart.

The command line turns each into one line on stderr: :class:`BadInput` ends with exit code 2 (nothing was
written, mend the input), :class:`RunFailed` with exit code 1 (the work itself failed).
"""

import difflib
from collections.abc import Iterable


class BadInput(ValueError):
    """The request cannot be carried out as given. The message says what is wrong, where, and the mend."""


class RunFailed(RuntimeError):
    """Work that was well asked for failed while it ran. The message says at which stage and what is kept."""


def unknown(kind: str, name: str, known: Iterable[str]) -> BadInput:
    """The error for a name that nobody owns: it offers the nearest known names."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5) or names
    return BadInput(f"unknown {kind} {name!r}; did you mean {', '.join(near)}?")
