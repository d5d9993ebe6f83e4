"""Benchmarks, one per file. The folder is installed as ``harness.tasks``."""

if __name__ != "harness.tasks":
    raise ImportError("import harness.tasks, not tasks: a second copy of every class would follow")
