"""Distillation methods, one per file. The folder is installed as ``harness.methods``."""

if __name__ != "harness.methods":
    raise ImportError("import harness.methods, not methods: a second copy of every class would follow")
