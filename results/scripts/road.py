"""How long the road of one run is: the files of ours that it enters, and the rooms that four values pass.

    python -m results.scripts.road

A file is entered when one of its functions executes; that it is imported does not count, nor what runs while it is. A
room of a value is a function that gets the value as an argument, by itself or one level inside a list, a mapping or a
dataclass. The values: the method (its name, its class, its instance), a learning rate that nothing else has, the first
problem, and its completion. Only this process is watched; the workers that grade are others.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

ROOT = Path(__file__).parents[2]
METHOD, TASK, RATE = "gkd", "amc23@micro", 0.00123
FEW = 40  # elements of a list or a mapping that are looked at
OPTIMIZED = 1  # of a code object: a function, not the body of a module or a class


class Road:
    """Notes which functions of ours execute, and what they are given."""

    def __init__(self) -> None:
        self.files: dict[str, None] = {}
        self.rooms: dict[str, dict[tuple[str, str], None]] = {}
        self.known: dict[CodeType, str] = {}
        self.problem = self.completion = None

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event != "call":
            return
        code = frame.f_code
        if code not in self.known:
            path = Path(code.co_filename)
            inside = path.is_relative_to(ROOT) and ".venv" not in path.parts and code.co_flags & OPTIMIZED
            self.known[code] = str(path.relative_to(ROOT)) if inside and path != Path(__file__) else ""
        file = self.known[code]
        if not file or (file not in self.files and _imports(frame)):
            return
        self.files.setdefault(file)
        if code.co_name.startswith("<"):  # a comprehension is a part of its function
            return
        for name in code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]:
            for part in _parts(frame.f_locals.get(name)):
                if kind := self._kind(part):
                    self.rooms.setdefault(kind, {}).setdefault((file, code.co_qualname))

    def _kind(self, value: Any) -> str | None:
        name = value.__name__ if isinstance(value, type) else type(value).__name__
        if name == METHOD.upper() or (isinstance(value, str) and value == METHOD):
            return "--method"
        if isinstance(value, float | str) and (value == RATE or str(value).endswith(f"learning_rate={RATE}")):
            return "learning rate"
        if name == "Problem" and not isinstance(value, type):
            self.problem = self.problem or value.id
            return "problem" if value.id == self.problem else None
        if name == "Completion" and not isinstance(value, type):
            self.completion = self.completion or value.text
            return "completion" if value.text == self.completion else None
        return "completion" if isinstance(value, str) and value and value == self.completion else None


def _imports(frame: FrameType) -> bool:
    """Whether a module is being imported further up."""
    above = frame.f_back
    while above is not None:
        if above.f_code.co_filename.startswith("<frozen importlib"):
            return True
        above = above.f_back
    return False


def _parts(value: Any) -> Iterator[Any]:
    yield value
    if isinstance(value, list | tuple):
        yield from value[:FEW]
    elif isinstance(value, dict):
        yield from list(value.values())[:FEW]
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from (getattr(value, field.name, None) for field in dataclasses.fields(value))


def walk(steps: int, problems: int | None = None) -> Road:
    """The road of one command, which is run in this process and asks ``problems`` (default: all)."""
    # Imports are no part of the road, and slow when traced.
    from harness.cli import main
    from harness.models import lm_eval_adapter  # noqa: F401
    from harness.training import loop  # noqa: F401

    road = Road()
    with tempfile.TemporaryDirectory() as results:
        words = ["run", "--method", METHOD, "--task", TASK, "--results", results]
        words += ["--set", f"training.steps={steps}", "--set", f"training.learning_rate={RATE}"]
        words += [] if problems is None else ["--set", f"evaluation.limit={problems}"]
        # Tracers are told of calls of Python functions alone; profilers also of every return and built-in function.
        threading.settrace(road)
        sys.settrace(road)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # stdout is for the counts
                code = main(words)
        finally:
            sys.settrace(None)
            threading.settrace(None)  # type: ignore[arg-type]
    if code:
        raise SystemExit(f"the run ended with {code}")
    return road


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=2, help="optimizer steps of the run")
    parser.add_argument("--problems", type=int, help="problems that the run asks (default: all of the task)")
    chosen = parser.parse_args()
    road = walk(chosen.steps, chosen.problems)
    rooms = {kind: [f"{file}: {name}" for file, name in known] for kind, known in road.rooms.items()}
    counts = {
        kind: {"functions": len(known), "files": len({f for f, _ in known})} for kind, known in road.rooms.items()
    }
    entered = {
        folder: sum(file.startswith(f"{folder}/") for file in road.files) for folder in ("harness", "methods", "tasks")
    }
    print(json.dumps({"entered": entered, "counts": counts, "files": sorted(road.files), "rooms": rooms}, indent=1))


if __name__ == "__main__":
    main()
