"""The command line. Results go to stdout, everything else to stderr; :mod:`harness.commands` has the commands.

Exit codes: 0 success, 2 bad input (nothing was written), 1 failure while working (finished work is kept).
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from harness import __version__, error_location
from harness.commands import NAMES, arguments
from harness.errors import BadInput, RunFailed, unknown
from harness.safe_read import aside, for_stdout, printable

LONGEST = 4000  # characters of an argument; paths end there, too
SHOWN = 240  # of a word in a message


class _Parser(argparse.ArgumentParser):
    """An argument parser that reports a mistake in one line and suggests the nearest valid word."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message} (see {self.prog} --help)")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            if action.nargs == argparse.PARSER:
                raise unknown("command", str(value), choices)
            what = (action.option_strings[-1:] or [action.dest])[0]
            message = str(unknown(what, str(value), choices))
            rest = "" if all(choice in message for choice in choices) else f" It is one of {', '.join(choices)}."
            raise BadInput(message + rest)

    def parse_known_args(self, args=None, namespace=None):
        words = list(sys.argv[1:] if args is None else args)
        parsed, rest = super().parse_known_args(self._freed(words), namespace)
        for word in rest:
            if word.startswith("-"):
                raise unknown(f"option of {self.prog}", word.partition("=")[0], self._option_string_actions)
        if rest:
            known = [("methods", "-m"), ("tasks", "-t")]
            places = " and ".join(
                f"{what} behind {flag}" for what, flag in known if flag in self._option_string_actions
            )
            raise BadInput(f"{self.prog} does not take {' '.join(rest)!r}" + (f"; name {places}" if places else ""))
        return parsed, rest

    def _freed(self, words: list[str]) -> list[str]:
        """``words`` with positional arguments restored, after ``--``, that an option of several values took.

        ``compare -t amc23 gkd vcrd`` means the same as ``compare gkd vcrd -t amc23``: the missing arguments are the
        last words of the last list.
        """
        needed = [each for each in self._actions if not each.option_strings and each.nargs in (None, "+")]
        if not needed or "--" in words:
            return words
        free, last = 0, range(0)  # arguments without a name; the words of the last list
        option: argparse.Action | None = None
        taken = 0  # words that the option has
        for place, word in enumerate(words):
            if word.startswith("-") and len(word) > 1:
                option, taken = self._option_string_actions.get(word), 0
            elif option is not None and option.nargs == "+":
                taken += 1
                last = range(place + 1 - taken, place + 1)
            elif option is not None and taken == 0 and option.nargs in (None, "?"):
                taken = 1
            else:
                free += 1
        missing = len(needed) - free
        if not 0 < missing < len(last):  # an option keeps one value at least
            return words
        moved = words[last.stop - missing : last.stop]
        return [*words[: last.stop - missing], *words[last.stop :], "--", *moved]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit code. Never raises for bad input or failed work."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # turns off the progress bars of libraries; ours are in harness.progress
    words = sys.argv[1:] if arguments is None else arguments
    try:
        return _run(arguments)
    except BaseException as error:
        if "--debug" in words and not (isinstance(error, SystemExit) and error_location.of_error(error) is None):
            traceback.print_exception(error, file=sys.stderr)
        return _report(error)


def _run(arguments: Sequence[str] | None) -> int:
    """Runs one command and prints its output. Raises whatever stops it."""
    with error_location.faults_as(RunFailed):
        words = list(sys.argv[1:] if arguments is None else arguments)
        _check(words)
        if "_ARGCOMPLETE" in os.environ:  # a shell asks for completions; this prints them and exits
            import argcomplete

            argcomplete.autocomplete(parser())
        if not words:
            parser().print_help()
            return 0
        # A command needs none of the other files; they are imported only if the first word is not a command.
        chosen = parser(words[:1] if words[0] in NAMES else NAMES).parse_args(words)
        with contextlib.redirect_stdout(sys.stderr):  # keep the output of libraries apart from the results on stdout
            printed = chosen.command(chosen)
        if printed:
            print(for_stdout(printed))
        return chosen.exit_code


def _check(arguments: Sequence[str]) -> None:
    """Raises BadInput for an argument that cannot be a name, path or value of any command."""
    for number, word in enumerate(arguments, 1):
        if not word:
            raise BadInput(f"argument {number} is empty (an unset variable?); leave it out, or give a value")
        if printable(word) != word:
            raise BadInput(f"argument {number} holds a character that cannot be printed: {_cut(printable(word))}")
        if len(word) > LONGEST:
            raise BadInput(f"argument {number} has {len(word):,} characters, more than {LONGEST:,}: {_cut(word)}")


def _report(error: BaseException) -> int:
    """Reports in one line on stderr what stopped a command; returns the exit code. Lets the exit of --help pass."""
    if isinstance(error, BrokenPipeError):  # the reader closed the pipe, as ``| head`` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, BadInput):
        if (
            os.environ.get("LOCAL_RANK", "0") == "0"
        ):  # all processes of a launch raise the same error; the first one reports it
            aside(f"harness: {_one_line(error)}")
        return 2
    if isinstance(error, RunFailed):
        line = f"failed: {_one_line(error)}"
    elif isinstance(error, KeyboardInterrupt):
        line = "interrupted; finished work is kept, run the same command again to continue"
    elif isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        aside(f"harness: a file cannot have this name, it is too long: {_cut(str(error.filename))}")
        return 2
    elif isinstance(error, OSError):
        line = f"failed: {error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
    elif isinstance(error, Exception):
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{error_location.shown(last.filename)}:{last.lineno}"
        line = f"internal error: {type(error).__name__}: {_one_line(error)} at {place}"
        line += "; run again with --debug for the trace and report it"
    else:
        raise error
    aside(f"harness: {line}")
    return 1


def parser(names: Sequence[str] = NAMES) -> argparse.ArgumentParser:
    """The parser of these commands; ``tests/test_cli.py`` pins all options."""
    top = _Parser(
        prog="harness",
        description="Distil, evaluate, record and tabulate with one command.",
        epilog="examples:\n"
        "  harness run -m untouched kd -t humaneval  # two minutes on two cores\n"
        "  harness table                             # what is recorded, by task\n"
        "  harness show gkd                          # a method's equation and settings\n\n"
        "harness COMMAND --help says what a command is for, with three examples.",
        formatter_class=arguments.Help,
    )
    top.set_defaults(exit_code=0)
    top.add_argument("-V", "--version", action="version", version=f"harness {__version__}")
    commands = top.add_subparsers(title="commands", required=True, metavar="COMMAND", parser_class=_Parser)

    for name in names:
        import_module(f"harness.commands.{name}").add(commands)
    for one in (top, *commands.choices.values()):
        one.add_argument("--debug", action="store_true", help="print the traceback of an error")
    return top


def _one_line(error: BaseException) -> str:
    return printable(" ".join(map(_cut, str(error).split())))


def _cut(word: str) -> str:
    """A word, with its middle left out if it is too long to read."""
    return word if len(word) <= SHOWN else f"{word[: SHOWN // 2]}…{word[-SHOWN // 2 :]}"
