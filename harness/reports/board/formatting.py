"""Formats numbers, links and file names for the pages."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from markupsafe import Markup, escape

from harness.leaderboard import text_tables
from harness.leaderboard.labels import plain_label
from harness.metrics import Scale


def minus(text: str) -> str:
    """A printed number with a true minus."""
    return text.replace("-", "−")


def amount(value: float | None, unit: str = "") -> str:
    """A count in at most four characters, a prefix and its unit: 950, 12.3 k, 4.56 MB."""
    return "" if value is None else text_tables.amount(value, unit).replace(" ", "\u202f")


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


def axis(values: Iterable[float], scale: Scale) -> dict[str, Any]:
    """An axis around ``values`` with round ends and up to seven ticks, each its value and its text.

    Steps are 1, 2 or 5 times a power of ten as printed, from ten times the last decimal of the scale on.
    """
    listed = list(values)
    low, high = min(listed), max(listed)
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


def task_file(task: str, protocol: str) -> str:
    """The file name of a task under one protocol, without its ending; it lasts as long as the protocol."""
    title = f"{task}-{protocol[:12]}"
    return file_names([title])[title]


def spread(row: Any) -> str:
    """A row's score with half of its interval: ``45.7 ±7.0``."""
    return text_tables.spread(row.score, row.low, row.high, row.scale)


def name_part(label: str) -> str:
    """A row's name without its details, with the mark of a reconstruction: ``vcrd‡``."""
    name = label.partition(" (")[0]
    return name + "‡" if label.endswith(")‡") else name


def detail_part(label: str) -> str:
    """The details of a row's name in plain words: ``340 steps``."""
    return plain_label(label.partition(" (")[2].removesuffix("‡").removesuffix(")"))


def axis_around(rows: Sequence[Any], marks: Iterable[float] = ()) -> dict[str, Any]:
    """The axis of some rows' intervals, with the ``marks`` close to them."""
    ends = [end for row in rows for end in (row.low, row.high, row.score)]
    low, high = min(ends), max(ends)
    near = [mark for mark in marks if low - (high - low) <= mark <= high + (high - low) / 2]
    return axis([*ends, *near], rows[0].scale)


def file_names(runs: Iterable[str]) -> dict[str, str]:
    """A unique file name of harmless characters for each run id."""
    names: dict[str, str] = {}
    for run in runs:
        name = re.sub(r"[^\w.@+-]|^\.+", "_", run, flags=re.ASCII)[:150]
        if name != run:
            name += f"-{hashlib.sha256(run.encode('utf-8', 'replace')).hexdigest()[:8]}"
        names[run] = name
    return names


def standing(row: Any) -> str:
    """How a row compares with the best of its section, in a word."""
    return "best" if row.rank == 1 else "tied" if row.tied else "mark" if row.reference else "below"


def half(row: Any) -> str:
    """Half of a row's interval as printed; both ends if half of it would leave the scale."""
    return re.sub(r"^[^ ]+ ", "", spread(row))


def code(text: str) -> Markup:
    """Escaped text, with code between backticks."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(Markup("<code>{}</code>").format(p) if i % 2 else escape(p) for i, p in enumerate(parts))


FILTERS = {
    "code": code,
    "amount": amount,
    "count": count,
    "path": path,
    "strip": strip,
    "steps": plain_label,
    "name_part": name_part,
    "detail_part": detail_part,
    "standing": standing,
    "half": half,
    "markup": Markup,  # for figures drawn by the harness
}
