"""Distil, evaluate, record, tabulate: one training loop for every distillation objective.

``harness.run`` is the place to start reading: it turns a specification into a record.
Importing this package imports neither torch nor any method or task; public names load on first use.
"""

from importlib import import_module

__version__ = "0.2.0"

_PUBLIC = {
    "Method": "harness.method",
    "Needs": "harness.method",
    "Tokens": "harness.method",
    "Task": "harness.task",
    "Completion": "harness.types",
    "Problem": "harness.types",
    "Prompt": "harness.types",
    "Verdict": "harness.types",
    "BadInput": "harness.errors",
    "load_results": "harness.leaderboard.table",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'harness' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
