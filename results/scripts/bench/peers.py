"""The environment of TRL and Liger: pinned, made on demand, never a dependency of the harness."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from harness.errors import RunFailed
from results.scripts.bench.measure import ROOT

PINNED = Path(__file__).with_name("peers.txt")
FOLDER = ROOT / ".venv-bench"


def python() -> Path:
    """The peers' interpreter. Makes their environment when it is missing; raises RunFailed where that fails."""
    own = Path(os.environ.get("HARNESS_BENCH_PYTHON") or FOLDER / "bin" / "python")
    if own.exists() and (os.environ.get("HARNESS_BENCH_PYTHON") or (FOLDER / "ready").exists()):
        return own
    links = os.environ.get("UV_FIND_LINKS") or os.environ.get("PIP_FIND_LINKS") or ""
    for command in (
        [sys.executable, "-m", "venv", str(FOLDER)],
        [str(own), "-m", "pip", "install", "-q", "uv"],
        [str(FOLDER / "bin" / "uv"), "pip", "install", "-q", "--compile-bytecode", "-p", str(own), "-r", str(PINNED)],
    ):
        done = subprocess.run(command, env=os.environ | {"UV_FIND_LINKS": links}, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no words"])[-1]
            raise RunFailed(f"the environment of TRL and Liger could not be made: {last}")
    (FOLDER / "ready").touch()
    return own
