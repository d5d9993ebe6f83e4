"""How the pages write numbers, links and file names."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from harness.leaderboard import numbers


def points(share: float | None, digits: int = 1) -> str:
    """A share of one in percent points: 0.405 is 40.5."""
    return "" if share is None else f"{100 * share:.{digits}f}"


def signed(share: float | None) -> str:
    """A difference in percent points, with its sign and a true minus."""
    return "" if share is None else numbers.signed(share).replace("-", "−")


def amount(value: float | None, unit: str = "") -> str:
    """A count in at most four characters, a prefix and its unit: 950, 12.3 k, 4.56 MB."""
    return "" if value is None else numbers.amount(value, unit).replace(" ", "\u202f")


def count(value: float) -> str:
    """A number of correct answers, which halves and shares may enter: 121.5."""
    return f"{value:.10g}"


def path(name: str) -> str:
    """A file name as a part of a link: ``@`` and ``#`` keep no meaning of their own."""
    return quote(name, safe="")


def strip(value: float, axis: Mapping[str, Any]) -> str:
    """Where ``value`` lies on ``axis``, in percent of its length."""
    low, high = axis["low"], axis["high"]
    return f"{100 * min(1.0, max(0.0, (value - low) / (high - low))):.2f}"


FILTERS = {
    "points": points,
    "signed": signed,
    "amount": amount,
    "count": count,
    "path": path,
    "strip": strip,
    "markup": Markup,  # for what we drew ourselves
}


def axis(values: Iterable[float]) -> dict[str, Any]:
    """A scale of shares around ``values`` with round ends and three to six ticks."""
    found = list(values)
    low, high = min(found), max(found)
    for step in (0.01, 0.02, 0.05, 0.1, 0.2):
        bottom = max(0.0, math.floor(low / step + 1e-9) * step)
        top = min(1.0, max(math.ceil(high / step - 1e-9) * step, bottom + step))
        if (top - bottom) / step <= 6.01:
            break
    ticks = [bottom + i * step for i in range(round((top - bottom) / step) + 1)]
    return {"low": bottom, "high": top, "ticks": ticks}


def file_names(runs: Iterable[str]) -> dict[str, str]:
    """A file name without surprises for each run id, no two alike."""
    found: dict[str, str] = {}
    for run in runs:
        name = re.sub(r"[^\w.@+-]|^\.+", "_", run, flags=re.ASCII)[:150]
        if name != run:
            name += f"-{hashlib.sha256(run.encode('utf-8', 'replace')).hexdigest()[:8]}"
        found[run] = name
    return found
