"""``python -m results.scripts.bench``: one or more benchmarks, their tables on stdout and below ``--out``."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from pathlib import Path

from harness.errors import BadInput, RunFailed
from results.scripts.bench import NAMES
from results.scripts.bench.measure import serve


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, 2 for bad input, 1 where a side failed."""
    parser = argparse.ArgumentParser(prog="python -m results.scripts.bench", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"any of {', '.join(NAMES)} (default: all)")
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="folder of the tables")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each side (default 5)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch on each side (default 1)")
    parser.add_argument("--size", choices=("small", "full"), default="full", help="small: a smoke test, no result")
    parser.add_argument("--only", action="append", default=[], help="only these rows, e.g. methods of `loss`")
    parser.add_argument("--hidden", type=int, help="of `loss`: another hidden size; the memory hardly depends on it")
    parser.add_argument("--tokens", type=int, help="of `loss`: another number of tokens, for less memory")
    parser.add_argument("--note", action="append", default=[], help="a remark that is kept with the table; repeatable")
    parser.add_argument("--side", metavar="MODULE", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.side:
        return serve(chosen.side)
    try:
        if strange := sorted(set(chosen.name) - set(NAMES)):
            raise BadInput(f"no benchmark is called {strange[0]!r}; there are {', '.join(NAMES)}")
        if chosen.rounds < 1 or chosen.threads < 1:
            raise BadInput("--rounds and --threads must be at least 1")
        for name in chosen.name or NAMES:
            report = import_module(f"results.scripts.bench.{name}").run(chosen)
            report.notes += chosen.note
            report.write(chosen.out)
            print(report.markdown())
    except (BadInput, RunFailed) as error:
        print(f"results.scripts.bench: {error}", file=sys.stderr)
        return 2 if isinstance(error, BadInput) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
