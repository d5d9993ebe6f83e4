"""Our maths benchmarks as lm-eval tasks, for its own command line; their names begin with ``harness_``."""
