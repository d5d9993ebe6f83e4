"""Learning curves, stored with the records, so that they outlive the trained students.

    <root>/curves/<training_id>.json      {"training_id": …, "method": "vcrd", "seed": 0, "points": [{"step": 4, …}, …]}

A curve has at most :data:`POINTS` points. It is for figures; no score depends on it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from harness import safe_read
from harness.atomic import write

POINTS = 100
Point = dict[str, float | None]


def thin(curve: Sequence[Mapping[str, float]], points: int = POINTS) -> list[Point]:
    """At most ``points`` points, each the mean of the steps since the point before it, under its last step.

    ``seconds`` is the clock at that step, not a mean. What is not a finite number becomes None.
    """
    if not curve:
        return []
    width = math.ceil(len(curve) / points)
    # Counted from the end, so that the last point is a whole one and ends at the last step.
    ends = range(len(curve) - (math.ceil(len(curve) / width) - 1) * width, len(curve) + 1, width)
    return [_mean(curve[max(0, end - width) : end]) for end in ends]


def _mean(rows: Sequence[Mapping[str, float]]) -> Point:
    last, point = rows[-1], {}
    for key in dict.fromkeys(key for row in rows for key in row):  # some are measured at some steps only
        values = [row[key] for row in rows if key in row]
        mean = last[key] if key in ("step", "seconds") else sum(values) / len(values)
        point[key] = float(f"{mean:.6g}") if math.isfinite(mean) else None
    return point | {"step": int(last["step"])}


def path_of(root: Path | str, training_id: str) -> Path:
    """The path of the curve of ``training_id``."""
    return Path(root) / "curves" / f"{training_id}.json"


def keep(
    root: Path | str, training_id: str, method: str, seed: int, curve: Sequence[Mapping[str, float]]
) -> Path | None:
    """Writes the thinned curve of a training in one step, unless it is empty. Replaces an earlier curve."""
    if not curve:
        return None
    path = path_of(root, training_id)
    content = json.dumps({"training_id": training_id, "method": method, "seed": seed, "points": thin(curve)})
    Path(root).mkdir(parents=True, exist_ok=True)
    with FileLock(Path(root) / ".lock"):  # the runs of one training on several tasks write the same curve
        write(path, content.encode() + b"\n")
    return path


def read(root: Path | str, training_id: str) -> list[Point]:
    """The points of a training's curve; [] if there is no file or it is damaged."""
    try:
        points = safe_read.value(safe_read.content(path_of(root, training_id), safe_read.CURVE, root))["points"]
        return [_checked(point) for point in points]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # no score depends on it
        return []


def _checked(point: Mapping[str, Any]) -> Point:
    numbers: Point = {k: v for k, v in point.items() if isinstance(v, int | float) and math.isfinite(v)}
    if "step" not in numbers:
        raise ValueError("a point of a curve says its step")
    return numbers
