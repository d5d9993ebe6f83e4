"""``harness show``: a record, or the card of a method, task, recipe or paper."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import sys
import tempfile
import types
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness import safe_read
from harness.commands import arguments
from harness.errors import BadInput

if TYPE_CHECKING:
    from harness.rerun.command import PlannedRerun


def add(commands: argparse._SubParsersAction) -> None:
    command = arguments.command(
        commands,
        "show",
        "a record by its id; or a method, task, recipe, paper, … by its name",
        about="Shows a record, or the card of a method, task, recipe, paper, judge, signal or metric.",
        examples=("harness show gkd", "harness show task humaneval", "harness show RUN_ID --command"),
    )
    what = command.add_argument(
        "what",
        nargs="+",
        metavar="NAME|RUN_ID",
        help="a name, with its kind before it if several kinds have it; a run id, its beginning, or a record file",
    )
    arguments.offer(what, "methods", "tasks", "recipes", "papers", "judges", "signals", "metrics", "kinds", "runs")
    command.add_argument(
        "--command", action="store_true", dest="as_command", help="print the harness run command that makes this record"
    )
    command.add_argument(
        "--format", choices=("text", "md", "csv", "latex", "json"), help="format of a paper (default: text)"
    )
    arguments.replacements(command)
    arguments.results(command)
    command.set_defaults(command=call)


def call(args: argparse.Namespace) -> str:
    from harness import show

    if args.as_command:
        return _command(args)
    if any(vars(arguments.replacements_of(args)).values()):
        *flags, last = (f"--{name}" for name in arguments.REPLACEABLE)
        raise BadInput(f"{', '.join(flags)} and {last} go with --command")
    kind, name = _kind_and_name(args)
    if kind == "paper":
        from harness.papers import tables
        from harness.records import reported

        form = "json" if args.json else args.format or "text"
        shown = tables.render(reported.find(name, args.results), form)
        return arguments.fitted(shown) if form == "text" else shown
    if args.format:
        raise BadInput("--format is for tables of papers: harness show paper NAME --format md")
    if kind is not None:
        with _on_first_use("torch"):  # a card computes nothing, and torch takes seconds
            card = show.card(kind, name)
        return arguments.dump(card) if args.json else arguments.fitted(show.card_text(card))
    from harness.records.store import Store

    try:
        record = Store(args.results).get(name)
    except BadInput as error:
        known = [each for kind in show.KINDS for each in show.names(kind, args.results)]
        near = difflib.get_close_matches(name, known, 1)
        raise BadInput(f"unknown name {name!r}; did you mean {near[0]}?" if near else str(error)) from None
    return arguments.dump(record) if args.json else arguments.fitted(show.record_text(record))


def _kind_and_name(args: argparse.Namespace) -> tuple[str | None, str]:
    """The requested kind and name; no kind for a record."""
    from harness import show

    if len(args.what) == 2 and args.what[0].removesuffix("s") in show.KINDS:
        return args.what[0].removesuffix("s"), args.what[1]
    if len(args.what) != 1:
        raise BadInput(f"show takes a name or a run id, or one of {', '.join(show.KINDS)} and a NAME")
    name = args.what[0]
    kinds = show.kinds_of(name, args.results)
    if not kinds and name.removesuffix("s") in show.KINDS:
        raise BadInput(f"show {name} needs a NAME; harness list {name.removesuffix('s')}s lists them")
    if not kinds:
        return None, name
    if len(kinds) > 1:
        others = " or ".join(f"harness show {kind} {name}" for kind in kinds[1:])
        safe_read.aside(f"{name} is a {kinds[0]}; for the other meaning: {others}")
    return kinds[0], name


def _command(args: argparse.Namespace) -> str:
    """The command line of a record; exit code 1 if it would make another run here, or if that is unknown."""
    from harness.records.store import Store
    from harness.rerun import command

    if len(args.what) != 1:
        raise BadInput("show --command takes one record: a run id, its beginning, or a record file")
    record = Store(args.results).get(args.what[0])
    with tempfile.TemporaryDirectory() as scratch:  # planning opens the answer file of a judge
        rerun = command.find(record, Path(scratch), arguments.replacements_of(args), fetch=False)
    if not rerun.exact:
        safe_read.aside(f"harness: {record['run_id']}: {_doubt(rerun)}")
        args.exit_code = 1
    line = command.line(rerun.request)
    return arguments.dump({"command": line, "exact": rerun.exact, "differs": rerun.differs}) if args.json else line


def _doubt(rerun: PlannedRerun) -> str:
    """Why the command may make another record than the one it was found for."""
    if rerun.plan is None:
        return f"the command is {rerun.differs}"
    if rerun.same_training:
        return f"the command trains the same student, but measures it otherwise than the record: {rerun.differs}"
    return f"the command trains another student than the record: {rerun.differs}"


@contextlib.contextmanager
def _on_first_use(module: str) -> Iterator[None]:
    """What is imported here gets a stand-in for ``module``; what is imported afterwards gets the module."""
    sys.modules.setdefault(module, _Later(module))
    try:
        yield
    finally:
        if isinstance(sys.modules.get(module), _Later):
            del sys.modules[module]


class _Later(types.ModuleType):
    """Stands in for a module, and imports it on first use."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__") and name != "__path__":  # introspection asks every module for these
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        real = importlib.import_module(self.__name__)
        vars(self).update(vars(real))
        return getattr(real, name)
