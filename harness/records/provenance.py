"""Collects the provenance of a number: commit, package versions, hardware. No paths, no host name, no heavy imports."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "reasoning-distillation-harness",
    "torch",
    "transformers",
    "accelerate",
    "tokenizers",
    "numpy",
    "scipy",
    "lm-eval",
    "math-verify",
    "evalplus",
    "alpaca-eval",
)
# Environment variables that choose the kernels of ATen, MKL and oneDNN.
FORCES = (
    "ATEN_CPU_CAPABILITY",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
)
_SOURCES = ("harness", "methods", "tasks", "pyproject.toml")  # what can change a number


def collect(device: str) -> dict[str, Any]:
    """The state of code, libraries and machine under which a record is made on ``device``."""
    return {
        **_checkout(Path(__file__).resolve().parents[2]),
        "versions": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "device": device,
        **_rounding(),
    }


def _rounding() -> dict[str, Any]:
    """What decides the rounding of sums besides CPU and torch: torch's kernels, its threads, and forced settings.

    ``kernel`` and ``threads`` are None where torch was not loaded.
    """
    torch = sys.modules.get("torch")
    return {
        "kernel": torch.backends.cpu.get_cpu_capability() if torch else None,
        "threads": torch.get_num_threads() if torch else None,
        "forced": {name: os.environ[name] for name in FORCES if name in os.environ},
    }


def _checkout(folder: Path) -> dict[str, Any]:
    """Commit, and whether the sources differ from it; both None when this is not a git checkout."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None or Path(top.strip()).resolve() != folder:  # installed below another checkout
        return {"commit": None, "dirty": None}
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--", *_SOURCES)
    return {
        "commit": commit.strip() if commit else None,
        "dirty": bool(changes.strip()) if changes is not None else None,
    }


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(folder), *arguments]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor())
