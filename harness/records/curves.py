"""Learning curves: stored with the records, so that they outlive the trained students, and streamed to trackers.

    <root>/curves/<training_id>.json      {"training_id": …, "method": "vcrd", "seed": 0, "points": [{"step": 4, …}, …]}

A curve has at most :data:`POINTS` points. It is for figures; no score depends on it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock

from harness import safe_read
from harness.durable import write
from harness.errors import BadInput, RunFailed, install, unknown

POINTS = 100
HELD_OUT = "held_out_kl"  # forward KL on held-out text, where a training measures it
Point = dict[str, float | None]


def thin(curve: Sequence[Mapping[str, float]], points: int = POINTS) -> list[Point]:
    """At most ``points`` points, each the mean of the steps since the point before it, under its last step.

    ``seconds`` is the clock at that step, not a mean. Non-finite numbers become None.
    """
    if not curve:
        return []
    width = math.ceil(len(curve) / points)
    # Counted from the end, so that the last point is complete and ends at the last step.
    ends = range(len(curve) - (math.ceil(len(curve) / width) - 1) * width, len(curve) + 1, width)
    return [_mean(curve[max(0, end - width) : end]) for end in ends]


def _mean(rows: Sequence[Mapping[str, float]]) -> Point:
    last, point = rows[-1], {}
    for key in dict.fromkeys(key for row in rows for key in row):  # some metrics are measured only at some steps
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
        raise ValueError("a point of a curve states its step")
    return numbers


# Streams a training run to experiment trackers (tensorboard, wandb, …) through accelerate.
#
# Trackers are not part of the spec: they never change a result, and one that fails costs a warning, not the training.
# Trackers that write files write below ``work/tracking`` of the results folder.

PROJECT = "reasoning-distillation"


@dataclass
class Tracking:
    """The trackers of one training run. With empty ``names`` every call does nothing."""

    names: tuple[str, ...] = ()
    folder: Path = Path("tracking")
    warnings: list[str] = field(default_factory=list)
    accelerator: Any = None

    def options(self, run: str) -> dict[str, Any]:
        """Arguments for ``Accelerator``."""
        if not self.names:
            return {}
        from accelerate.utils import ProjectConfiguration

        place = str(self.folder / run)
        return {
            "log_with": list(self.names),
            "project_config": ProjectConfiguration(project_dir=place, logging_dir=place),
        }

    def begin(self, accelerator: Any, run: str, settings: Mapping[str, Any]) -> None:
        """Opens the trackers for the training ``run``. Raises RunFailed when one does not start."""
        if not self.names:
            return
        naming = {"wandb": {"name": run}, "mlflow": {"run_name": run}, "trackio": {"name": run}}
        try:
            (self.folder / run).mkdir(parents=True, exist_ok=True)
            accelerator.init_trackers(PROJECT, config=_flat(settings) | {"run": run}, init_kwargs=naming)
        except Exception as error:  # trackers fail in many ways: no login, no server, no disk
            raise RunFailed(f"--track {','.join(self.names)} did not start: {_first_line(error)}") from None
        self.accelerator = accelerator

    def log(self, row: Mapping[str, float], step: int) -> None:
        """Streams one step. Stops streaming, with a warning, when a tracker fails."""
        self._do("log", dict(row), step=step)

    def end(self) -> None:
        """Closes the trackers."""
        self._do("end_training")
        self.accelerator = None

    def _do(self, what: str, *arguments: Any, **named: Any) -> None:
        if self.accelerator is None:
            return
        try:
            getattr(self.accelerator, what)(*arguments, **named)
        except Exception as error:  # as above; training continues without the tracker
            self.accelerator = None
            self.warnings.append(f"--track {','.join(self.names)} stopped: {_first_line(error)}")


def check_trackers(names: Sequence[str]) -> tuple[str, ...]:
    """``names`` without repeats. Raises BadInput for one that is unknown or not installed."""
    chosen = tuple(dict.fromkeys(names))
    if not chosen:
        return ()
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS, get_available_trackers

    known = sorted(map(str, LOGGER_TYPE_TO_CLASS))
    installed = {str(name) for name in get_available_trackers()}
    for name in chosen:
        if name not in known:
            raise unknown("tracker: --track", name, known)
        if name not in installed:
            fix = install("track") if name == "tensorboard" else f"pip install {name.replace('_', '-')}"
            raise BadInput(f"--track {name}: {name} is not installed here; {fix}")
    return chosen


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``training.steps``: trackers take only plain values."""
    plain: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            plain |= _flat(value, f"{prefix}{key}.")
        else:
            plain[f"{prefix}{key}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return plain


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
