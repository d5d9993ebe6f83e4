"""One distillation method a file. The folder installs as ``harness.methods``."""

if __name__ != "harness.methods":
    raise ImportError("import harness.methods, not methods: a second copy of every class would follow")
