"""Words that several commands share."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any


def results(command: argparse.ArgumentParser) -> None:
    """``--results DIR`` and ``--json``."""
    where = os.environ.get("HARNESS_RESULTS", "results")
    command.add_argument(
        "--results", type=Path, default=Path(where), metavar="DIR", help=f"results folder (default: {where})"
    )
    command.add_argument("--json", action="store_true", help="JSON on stdout, everything else on stderr")


def sandbox(command: argparse.ArgumentParser) -> None:
    """``--sandbox TIER``, which :func:`accept_sandbox` puts in force."""
    command.add_argument(
        "--sandbox",
        choices=("A", "B", "C"),
        help="the lowest sandbox tier that may run programs (default: HARNESS_SANDBOX, else B); C guards nothing",
    )


def accept_sandbox(chosen: argparse.Namespace) -> None:
    """Every sandbox of this process takes the tier of ``--sandbox`` as the lowest."""
    if chosen.sandbox:
        os.environ["HARNESS_SANDBOX"] = chosen.sandbox


def seed(word: str) -> int:
    """A training seed, or argparse's complaint."""
    if not word.isdecimal() or int(word) >= 2**31:
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number from 0 to 2147483647")
    return int(word)


def count(word: str) -> int:
    """A whole number from 1, or argparse's complaint."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number from 1")
    return int(word)


def dump(value: Any) -> str:
    """JSON as every command prints it."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
