"""What one check found."""

from __future__ import annotations

from dataclasses import dataclass

OK, NOTE, PROBLEM = "ok", "note", "problem"


@dataclass(frozen=True)
class Finding:
    """``status`` is ok; note (only some work misses it); or problem (what was asked for, or any run, will not work).

    ``mend`` is empty where there is nothing to do.
    """

    name: str
    status: str
    found: str
    mend: str = ""
