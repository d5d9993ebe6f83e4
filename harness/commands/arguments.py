"""Arguments that several commands share."""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import registry
from harness.errors import BadInput
from harness.leaderboard import ALL, COMPUTE, VIEWS
from harness.recipe import WORLDS
from harness.records import default_folder
from harness.safe_read import aside
from harness.types import SEEDS

if TYPE_CHECKING:
    from harness.rerun.command import Replacements


class Help(argparse.HelpFormatter):
    """Wraps the description of a command at the width of the terminal; each example stays on one line."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith("examples:") else super()._fill_text(text, width, indent)


def command(
    commands: argparse._SubParsersAction, name: str, help: str, *, about: str, examples: Sequence[str]
) -> argparse.ArgumentParser:
    """The parser of one command. ``help`` is its line in ``harness --help``, ``about`` opens its own help."""
    lines = "\n".join(f"  {example}" for example in examples)
    return commands.add_parser(
        name,
        help=help,
        description=about,
        epilog=f"examples:\n{lines}",
        formatter_class=Help,
    )


class _Extend(argparse.Action):
    """Collects the values of an option that may be repeated, given several at once, and separated by commas."""

    def __call__(self, parser, namespace, values, option_string=None):
        words = [values] if isinstance(values, str) else values
        known = getattr(namespace, self.dest) or []
        setattr(namespace, self.dest, [*known, *(part for word in words for part in registry.parts(word))])


def names(
    command: argparse.ArgumentParser, *flags: str, metavar: str, help: str, kind: str = "", required: bool = False
) -> None:
    """An option that takes several names: ``-m a b``, ``-m a,b`` or ``-m a -m b``.

    ``kind`` is the kind of the registry that completes a name in a shell.
    """
    action = command.add_argument(
        *flags, action=_Extend, nargs="+", default=[], required=required, metavar=metavar, help=help
    )
    if kind:
        offer(action, kind)


def values(command: argparse.ArgumentParser, *flags: str, metavar: str, help: str, **more: Any) -> None:
    """An option that takes several values that may contain commas: ``--set a=1 b=2``, or repeated."""
    command.add_argument(*flags, action="extend", nargs="+", default=[], metavar=metavar, help=help, **more)


def offer(action: argparse.Action, *kinds: str) -> None:
    """Has shells complete an argument: the names of these kinds; after a comma the next one.

    Kinds are those of the registry, and ``recipes``, ``papers``, ``kinds`` (their words) and ``runs`` (run ids).
    """

    def complete(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> list[str]:
        before, comma, part = prefix.rpartition(",")
        where = getattr(parsed_args, "results", None) or Path(default_folder())
        return [before + comma + name for kind in kinds for name in _offered(kind, part, where)]

    action.completer = complete  # type: ignore[attr-defined]


def _offered(kind: str, part: str, where: Path) -> list[str]:
    """The names of a kind; variants and worlds once an ``@`` is written, run ids once there is a beginning."""
    if kind == "runs":
        beginning = re.sub(r"[*?\[\]]", "", part)
        return [path.stem for path in where.glob(f"records/**/{beginning}*.json")] if beginning else []
    if kind == "papers":
        from harness.records import reported

        return reported.names(where)
    if kind == "recipes":
        from harness import recipe

        return recipe.names()
    if kind == "kinds":
        return [name.removesuffix("s") for name in (*registry.KINDS, "recipes", "papers")]
    names = []
    for entry in registry.entries(kind):
        suffixes = WORLDS if kind == registry.TASKS else entry.facts.get("variants", ())
        names += [f"{entry.name}@{one}" for one in suffixes] if "@" in part else [entry.name]
    return names


class _Seeds(_Extend):
    def __call__(self, parser, namespace, values, option_string=None):
        try:
            seeds = [seed(part) for word in values for part in registry.parts(word)]
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentError(self, str(error)) from None
        setattr(namespace, self.dest, [*(getattr(namespace, self.dest) or []), *seeds])


def seeds(command: argparse.ArgumentParser, help: str) -> None:
    """``--seed 0 1 2`` or ``--seed 0,1,2``, repeatable; None where it is not given."""
    command.add_argument("-s", "--seed", action=_Seeds, nargs="+", metavar="N", help=help)


def results(command: argparse.ArgumentParser) -> None:
    """``--results DIR`` and ``--json``."""
    where = default_folder()
    command.add_argument(
        "--results", type=Path, default=Path(where), metavar="DIR", help=f"results folder (default: {where})"
    )
    command.add_argument("--json", action="store_true", help="JSON on stdout, everything else on stderr")


def view(command: argparse.ArgumentParser) -> None:
    """``--view`` and ``--anchor``: which rows are compared (:mod:`harness.leaderboard.equal_compute`)."""
    command.add_argument(
        "--view",
        choices=VIEWS,
        default=ALL,
        help="steps: rows of equal optimizer steps together; compute: rows at equal compute (default: all)",
    )
    command.add_argument("--anchor", metavar="M", help="the method whose cost is the budget of --view compute")


def check_view(args: argparse.Namespace) -> None:
    """Raises BadInput for an anchor without the view that uses it."""
    if args.anchor and args.view != COMPUTE:
        raise BadInput("--anchor names the budget of --view compute; give --view compute too")


def check_cost(args: argparse.Namespace) -> None:
    """Raises BadInput for a unit of cost without the view that uses it."""
    if args.cost and args.view != COMPUTE:
        raise BadInput("--cost is the unit of --view compute; give that, too")


def protocol(command: argparse.ArgumentParser) -> None:
    """``--protocol``: the published protocol of a task to generate and grade under."""
    command.add_argument(
        "--protocol", metavar="P", help="use this published protocol, by name or hash; harness show task T lists them"
    )


def protocol_of_records(command: argparse.ArgumentParser) -> None:
    """``--protocol``: only records measured under this protocol."""
    command.add_argument("--protocol", metavar="P", help="only this protocol: its name, or the beginning of its hash")


def sandbox(command: argparse.ArgumentParser) -> None:
    """``--sandbox TIER``, which :func:`accept_sandbox` applies."""
    command.add_argument(
        "--sandbox",
        choices=("A", "B", "C"),
        help="the lowest sandbox tier that may run programs (default: HARNESS_SANDBOX, else B); C does not isolate",
    )


def accept_sandbox(args: argparse.Namespace) -> None:
    """Sets the lowest tier of every sandbox of this process."""
    if args.sandbox:
        os.environ["HARNESS_SANDBOX"] = args.sandbox


def seed(word: str) -> int:
    """Parses a training seed. Raises ArgumentTypeError."""
    if not word.isdecimal() or int(word) not in SEEDS:
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number from 0 to {SEEDS[-1]}")
    return int(word)


def count(word: str) -> int:
    """Parses a whole number from 1. Raises ArgumentTypeError."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number from 1")
    return int(word)


def prose_format() -> str:
    """The default format of a table: for a terminal if stdout is one, else Markdown."""
    return "terminal" if on_terminal() else "md"


def width() -> int:
    """Columns of the terminal; 80 if unknown."""
    return shutil.get_terminal_size().columns


def on_terminal() -> bool:
    """Whether the output of the command is read on a terminal."""
    return sys.__stdout__ is not None and sys.__stdout__.isatty()


def fitted(text: str, column: int | None = None) -> str:
    """Prose and lists, wrapped to the terminal. In a pipe, lines stay whole for programs that read them.

    Continuation lines start at ``column``, or at the second column of the line itself.
    """
    if not on_terminal():
        return text
    return "\n".join(part for line in text.split("\n") for part in _broken(line, width(), column))


def _broken(line: str, columns: int, column: int | None) -> list[str]:
    if len(line) <= columns:
        return [line]
    lead = len(line) - len(line.lstrip())
    second = re.match(r"\s*\S+(?: \S+){0,2} {2,}", line)
    # A formula goes on where it has a gap, not in the middle of a term.
    gaps = [found.span() for found in re.finditer(r"(?<=\S) {2,}(?=\S)", line) if found.start() <= columns]
    if column is None and lead >= 4 and not second and gaps:
        start, end = gaps[-1]
        return [*_broken(line[:start], columns, None), *_broken(" " * lead + line[end:], columns, None)]
    if column is None and second:
        column = len(second[0]) if len(second[0]) <= 3 * columns // 10 else lead + 4
    if column is None:
        column = lead + 2 if lead else 0
    shift = " " * min(lead if lead > columns // 4 else column, columns // 2)
    return textwrap.wrap(line, columns, subsequent_indent=shift, break_on_hyphens=False, break_long_words=False)


def dump(value: Any) -> str:
    """The JSON form that every command prints."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def warn(warnings: Iterable[str]) -> None:
    """Prints one line on stderr per warning."""
    for warning in warnings:
        aside(f"warning: {warning}")


# What the user may supply in place of a record's values, each with what it takes.
REPLACEABLE = {
    "method": "FILE",
    "task": "FILE",
    "recipe": "FILE.toml",
    "student": "DIR",
    "teacher": "DIR",
    "judge": "JUDGE",
    "device": "DEVICE",
}


def replacements(command: argparse.ArgumentParser) -> None:
    """The options for what a record does not contain: files, folders and addresses of this machine."""
    for name, metavar in REPLACEABLE.items():
        command.add_argument(
            f"--{name}", metavar=metavar, help="use this instead of what the record names; as in harness run"
        )


def replacements_of(args: argparse.Namespace) -> Replacements:
    """The values of :func:`replacements`."""
    from harness.rerun.command import Replacements

    return Replacements(**{name: getattr(args, name) for name in REPLACEABLE})
