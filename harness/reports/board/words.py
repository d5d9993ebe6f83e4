"""Formats numbers, links and file names for the pages."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from harness.leaderboard import numbers
from harness.metrics import Scale


def minus(text: str) -> str:
    """A printed number with a true minus."""
    return text.replace("-", "−")


def amount(value: float | None, unit: str = "") -> str:
    """A count in at most four characters, a prefix and its unit: 950, 12.3 k, 4.56 MB."""
    return "" if value is None else numbers.amount(value, unit).replace(" ", "\u202f")


def count(value: float) -> str:
    """A number of correct answers, possibly fractional: 121.5."""
    return f"{value:.10g}"


def path(name: str) -> str:
    """A file name as part of a link, with ``@`` and ``#`` quoted."""
    return quote(name, safe="")


def strip(value: float, axis: Mapping[str, Any]) -> str:
    """The position of ``value`` on ``axis``, in percent of its length."""
    low, high = axis["low"], axis["high"]
    return f"{100 * min(1.0, max(0.0, (value - low) / (high - low))):.2f}"


FILTERS = {
    "amount": amount,
    "count": count,
    "path": path,
    "strip": strip,
    "markup": Markup,  # for figures drawn by the harness
}


def axis(values: Iterable[float], scale: Scale) -> dict[str, Any]:
    """An axis around ``values`` with round ends and up to seven ticks, each its value and its text.

    Steps are 1, 2 or 5 times a power of ten as printed, from ten times the last decimal of the scale on.
    """
    found = list(values)
    low, high = min(found), max(found)
    for power in itertools.count(1 - scale.digits):
        for digit in (1, 2, 5):
            step = digit * 10.0**power / scale.times
            bottom = max(scale.low, math.floor(low / step + 1e-9) * step)
            top = min(scale.high, max(math.ceil(high / step - 1e-9) * step, bottom + step))
            if (top - bottom) / step <= 6.01:
                ticks = [bottom + i * step for i in range(int((top - bottom) / step + 1e-6) + 1)]
                written = [(tick, f"{scale.shown(tick):.{max(0, -power)}f}") for tick in ticks]
                return {"low": bottom, "high": top, "ticks": written}
    raise AssertionError("every finite span has a step")


def file_names(runs: Iterable[str]) -> dict[str, str]:
    """A unique file name of harmless characters for each run id."""
    found: dict[str, str] = {}
    for run in runs:
        name = re.sub(r"[^\w.@+-]|^\.+", "_", run, flags=re.ASCII)[:150]
        if name != run:
            name += f"-{hashlib.sha256(run.encode('utf-8', 'replace')).hexdigest()[:8]}"
        found[run] = name
    return found
