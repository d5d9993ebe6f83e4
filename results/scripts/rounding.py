"""Measures how far the rounding of a machine moves a score: published rows again under other kernels.

    python results/scripts/rounding.py run --work DIR [--minutes N]      trains what is missing, one process at a time
    python results/scripts/rounding.py report --work DIR                 writes results/rounding

A variant forces the kernels that another CPU would choose: ATen's (ATEN_CPU_CAPABILITY), MKL's
(MKL_ENABLE_INSTRUCTIONS, MKL_CBWR) and oneDNN's (ONEDNN_MAX_CPU_ISA), or another number of threads. Everything else
of a row (specification, seed, data, code) is the same, so what differs between variants is rounding alone. ``run``
may be killed at any moment and goes on with the same command.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "results" / "micro"
OUT = ROOT / "results" / "rounding"
TASKS = ("humaneval", "amc23", "alpaca_eval")

# Environment and settings of each variant. "avx512" is what torch chooses on the machine that measured.
VARIANTS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "avx512": ({}, ()),
    "avx2": (
        {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
        (),
    ),
    "sse": ({"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"}, ()),
    "avx512, 2 threads": ({"OMP_NUM_THREADS": "2"}, ("training.threads=2",)),
}
# The cheapest first, so that an early end leaves whole comparisons.
CELLS = (("kd", 0), ("gkd", 0), ("kd", 1), ("kd", 2), ("gkd", 1), ("vcrd", 0), ("gkd", 2), ("vcrd", 1))


def run(work: Path, minutes: float) -> None:
    """Every cell under every variant, as processes of their own, until ``minutes`` have passed."""
    end = time.monotonic() + 60 * minutes
    for method, seed in CELLS:
        for variant in VARIANTS:
            if time.monotonic() > end:
                sys.exit("the time is over; the same command goes on")
            began = time.monotonic()
            _one(work, method, seed, variant)
            print(f"{method} seed {seed}, {variant}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def _one(work: Path, method: str, seed: int, variant: str) -> None:
    """One training with its tasks; what is recorded already is returned at once by the harness."""
    forced, settings = VARIANTS[variant]
    command = [sys.executable, "-m", "harness", "run", "--method", method, "--seed", str(seed), "--json"]
    for task in TASKS:
        command += ["--task", task]
    for setting in settings:
        command += ["--set", setting]
    command += ["--results", str(work / variant.replace(", ", "-").replace(" ", "-"))]
    environment = {key: value for key, value in os.environ.items() if key not in _forced_names()}
    done = subprocess.run(
        ["nice", "-n", "10", *command],
        cwd=ROOT,
        env=environment | {"OMP_NUM_THREADS": "1"} | forced,
        stdout=subprocess.DEVNULL,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}")


def _forced_names() -> set[str]:
    return {name for forced, _ in VARIANTS.values() for name in forced}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--work", type=Path, required=True, help="folder of the runs, one results folder a variant")
    parser.add_argument("--minutes", type=float, default=60.0, help="start no training after so long")
    chosen = parser.parse_args()
    if chosen.what == "run":
        run(chosen.work, chosen.minutes)


if __name__ == "__main__":
    main()
