"""The sandbox: the only place where code written by a model is run.

A program runs in a process without network, environment, other processes, or files beyond the standard library. It
receives inputs and returns outputs, both plain values in JSON. The caller decides on the trusted side whether an output
is right, so a program that takes over its own process can return other outputs, but cannot change its verdict.

Reading order. Trusted side: ``job`` (what goes in and out), ``box`` (one sandbox process), ``transcript`` (parses what
a program sends), ``pool`` (boxes shared by threads), ``tiers`` (which isolation this machine offers). In the sandbox:
``zygote`` (forks one child per program), ``program`` (runs it), ``interpreter``, ``values``, ``arrays``, ``kernel``,
``seccomp``, ``threads``. The modules in the sandbox import only each other and the standard library.
"""

from importlib import import_module

_PUBLIC = {
    "End": "job",
    "SandboxJob": "job",
    "SandboxOutcome": "job",
    "Sandbox": "pool",
    "TIERS": "pool",
    "Tier": "pool",
    "shared": "pool",
    "tier": "pool",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'harness.sandbox' has no attribute {name!r}")
    return getattr(import_module(f"harness.sandbox.{_PUBLIC[name]}"), name)
