"""The result of one check."""

from __future__ import annotations

from dataclasses import dataclass

OK, NOTE, PROBLEM = "ok", "note", "problem"


@dataclass(frozen=True)
class Finding:
    """``status`` is ok, note (only some commands need it) or problem (no run, or not the requested one, can work).

    ``fix`` says what to do; it is empty where nothing is needed.
    """

    name: str
    status: str
    found: str
    fix: str = ""
