"""Streams a training run to experiment trackers (tensorboard, wandb, …) through accelerate.

Trackers are not part of the spec: they never change a result, and one that fails costs a warning, not the training.
Trackers that write files write below ``work/tracking`` of the results folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import BadInput, RunFailed, install, unknown

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


def check(names: Sequence[str]) -> tuple[str, ...]:
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
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value if isinstance(value, bool | int | float | str) else str(value)
    return found


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
