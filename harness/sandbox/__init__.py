"""The only place where code that a model wrote is run, and the walls around it.

A program gets a process without network, environment, other processes or files beyond the standard library;
it is told inputs and claims outputs, which are plain values in JSON. What they are worth is decided by the
caller, outside, so a program that takes over its own process has gained nothing but another way to be wrong.

Reading order: ``job`` (what goes in and out), ``box``, ``transcript`` and ``pool`` (the trusted side), ``tiers``;
then inside the wall ``zygote`` (forks one child per program), ``program`` (runs one), with ``interpreter``,
``values``, ``arrays``, ``kernel``, ``seccomp``, ``threads``. The inside imports nothing else, and only the
standard library.
"""

from importlib import import_module

_PUBLIC = {
    "End": "job",
    "SandboxJob": "job",
    "SandboxOutcome": "job",
    "Sandbox": "pool",
    "TIERS": "tiers",
    "Tier": "tiers",
    "shared": "pool",
    "tier": "tiers",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'harness.sandbox' has no attribute {name!r}")
    return getattr(import_module(f"harness.sandbox.{_PUBLIC[name]}"), name)
