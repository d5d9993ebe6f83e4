"""The command line: words to calls, results to stdout, everything else to stderr; harness.commands has the words.

Exit codes: 0 done, 2 bad input (nothing was written), 1 failed while working (what is done is kept).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from harness import __version__
from harness.commands import NAMES
from harness.errors import BadInput, RunFailed
from harness.reading import printable


class _Parser(argparse.ArgumentParser):
    """An argument parser whose mistakes are one line."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code. Never raises for bad input or failed work."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # the bars of libraries; ours are in harness.progress
    try:
        chosen = parser().parse_args(arguments)
        with contextlib.redirect_stdout(sys.stderr):  # libraries print; stdout is for results
            printed = chosen.command(chosen)
        if printed:
            print(printed)
        return chosen.exit_code
    except BadInput as error:
        if os.environ.get("LOCAL_RANK", "0") == "0":  # of several processes of a launch, which all meet it, one speaks
            print(f"harness: {_one_line(error)}", file=sys.stderr)
        return 2
    except RunFailed as error:
        print(f"harness: failed: {_one_line(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("harness: interrupted; what is finished is kept, the same command goes on", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        place = f" ({error.filename})" if error.filename else ""
        print(f"harness: failed: {error.strerror or error}{place}", file=sys.stderr)
        return 1


def parser() -> argparse.ArgumentParser:
    """The whole surface; ``tests/test_cli.py`` holds it still."""
    top = _Parser(prog="harness", description="Distil, evaluate, record and tabulate with one command.")
    top.set_defaults(exit_code=0)
    top.add_argument("--version", action="version", version=f"harness {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=_Parser)

    for name in NAMES:
        import_module(f"harness.commands.{name}").add(commands)
    return top


def _one_line(error: BaseException) -> str:
    return printable(" ".join(str(error).split()))
