"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.safe_read import printable


def results(command: argparse.ArgumentParser) -> None:
    """``--results DIR`` and ``--json``."""
    where = os.environ.get("HARNESS_RESULTS", "results")
    command.add_argument(
        "--results", type=Path, default=Path(where), metavar="DIR", help=f"results folder (default: {where})"
    )
    command.add_argument("--json", action="store_true", help="JSON on stdout, everything else on stderr")


UNITS = ("flops", "seconds", "tokens")  # a copy of those in harness.leaderboard.equal_compute, which is slow to import


def view(command: argparse.ArgumentParser) -> None:
    """``--view`` and ``--anchor``: which rows are compared with each other, see :mod:`harness.leaderboard.views`."""
    command.add_argument(
        "--view",
        choices=("all", "steps", "compute"),
        default="all",
        help="steps: rows of equal optimizer steps together; compute: rows at equal compute (default: all)",
    )
    command.add_argument("--anchor", metavar="M", help="the method whose cost is the budget of --view compute")


def check_view(chosen: argparse.Namespace) -> None:
    """Raises BadInput for an anchor without the view that uses it."""
    if chosen.anchor and chosen.view != "compute":
        raise BadInput("--anchor names the budget of --view compute; give --view compute too")


def sandbox(command: argparse.ArgumentParser) -> None:
    """``--sandbox TIER``, which :func:`accept_sandbox` applies."""
    command.add_argument(
        "--sandbox",
        choices=("A", "B", "C"),
        help="the lowest sandbox tier that may run programs (default: HARNESS_SANDBOX, else B); C does not isolate",
    )


def accept_sandbox(chosen: argparse.Namespace) -> None:
    """Sets the lowest tier of every sandbox of this process."""
    if chosen.sandbox:
        os.environ["HARNESS_SANDBOX"] = chosen.sandbox


def seed(word: str) -> int:
    """Parses a training seed. Raises ArgumentTypeError."""
    if not word.isdecimal() or int(word) >= 2**31:
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number from 0 to 2147483647")
    return int(word)


def count(word: str) -> int:
    """Parses a whole number from 1. Raises ArgumentTypeError."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number from 1")
    return int(word)


def dump(value: Any) -> str:
    """The JSON form that every command prints."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def warn(warnings: Iterable[str]) -> None:
    """Prints one line on stderr per warning."""
    for warning in warnings:
        print(f"warning: {printable(warning)}", file=sys.stderr)
