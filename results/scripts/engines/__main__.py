"""All that needs vLLM, one after the other: ``make vllm && python -m results.scripts.engines``.

    python -m results.scripts.engines [--out FOLDER] [--only agreement everywhere killed]

Agreement of the micro models, a training with vLLM in every role, a server that is killed. On two quiet cores minutes;
on cores that others use most of the time is spent on starting vLLM, which imports it in several processes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

SCRIPTS = {
    "agreement": ("--model", "micro:student", "micro:teacher"),
    "everywhere": (),
    "killed": (),
}


def main() -> int:
    known = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    known.add_argument("--out", type=Path, help="a folder that gets a page of each")
    known.add_argument("--only", nargs="+", choices=SCRIPTS, default=list(SCRIPTS))
    chosen = known.parse_args()
    codes = []
    for name in chosen.only:
        words = [sys.executable, "-m", f"results.scripts.engines.{name}", *SCRIPTS[name]]
        words += ["--out", str(chosen.out / f"{name}.md")] if chosen.out else []
        codes.append(subprocess.run(words).returncode)
        print(
            f"{name}: {'as it should be' if codes[-1] == 0 else f'exit code {codes[-1]}'}", file=sys.stderr, flush=True
        )
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
