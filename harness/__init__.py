"""Distil, evaluate, record, tabulate: one training loop for every distillation objective.

    import harness
    harness.run(methods=["gkd"], tasks=["amc23"], seeds=[0, 1])

:mod:`harness.api` has the functions; the module ``harness/run.py`` is the place to start reading.
Importing this package imports neither torch nor any method or task; public names load on first use.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from harness.api import compare as compare
    from harness.api import completions as completions
    from harness.api import grade as grade
    from harness.api import leaderboard as leaderboard
    from harness.api import run as run
    from harness.errors import BadInput as BadInput
    from harness.errors import RunFailed as RunFailed
    from harness.leaderboard.table import load_results as load_results
    from harness.method import Method as Method
    from harness.method import Needs as Needs
    from harness.method import Tokens as Tokens
    from harness.task import Task as Task
    from harness.types import Completion as Completion
    from harness.types import Problem as Problem
    from harness.types import Prompt as Prompt
    from harness.types import Verdict as Verdict

__version__ = "0.2.0"

_PUBLIC = {
    "run": "harness.api",
    "compare": "harness.api",
    "leaderboard": "harness.api",
    "completions": "harness.api",
    "grade": "harness.api",
    "load_results": "harness.leaderboard.table",
    "Method": "harness.method",
    "Needs": "harness.method",
    "Tokens": "harness.method",
    "Task": "harness.task",
    "Completion": "harness.types",
    "Problem": "harness.types",
    "Prompt": "harness.types",
    "Verdict": "harness.types",
    "BadInput": "harness.errors",
    "RunFailed": "harness.errors",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """Keeps ``harness.run`` and ``harness.leaderboard`` the functions when the modules of these names are imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _PUBLIC and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
