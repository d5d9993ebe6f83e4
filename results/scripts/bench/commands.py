"""Times whole commands: wall clock, and the CPU time of all their processes."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import RunFailed
from results.scripts.bench.measure import ROOT


def timed(command: Sequence[str], environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """``seconds``, ``cpu`` and ``stdout`` of a command. Raises RunFailed with its last line when it fails."""
    before, wall = os.times(), time.perf_counter()
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | (environment or {}),
    )
    seconds, after = time.perf_counter() - wall, os.times()
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RunFailed(f"{' '.join(map(str, command[1:4]))} …: ended with code {done.returncode}: {last}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": seconds, "cpu": cpu, "stdout": done.stdout}
