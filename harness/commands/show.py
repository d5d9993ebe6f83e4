"""``harness show``: a record, or the card of a method, task, recipe or paper."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from harness.commands import arguments, verify
from harness.errors import BadInput
from harness.safe_read import printable


def add(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("show", help="a record; or: show method|task|recipe|paper|judge|signal|metric NAME")
    command.add_argument("what", nargs="+", metavar="RECORD|RUN_ID", help="a record file, a run id or its beginning")
    command.add_argument(
        "--command", action="store_true", dest="as_command", help="the harness run command that makes this record"
    )
    command.add_argument("--format", choices=("text", "md", "csv", "latex", "json"), help="of a paper (default: text)")
    verify.add_given(command)
    arguments.results(command)
    command.set_defaults(command=call)


def call(chosen: argparse.Namespace) -> str:
    from harness import show

    if chosen.as_command:
        return _command(chosen)
    if any(vars(verify.given_of(chosen)).values()):
        raise BadInput("--method, --task, --recipe, --student, --teacher, --judge and --device go with --command")
    if len(chosen.what) == 2 and chosen.what[0] == "paper":
        from harness.papers import tables
        from harness.records import reported

        paper = reported.find(chosen.what[1], chosen.results)
        return tables.render(paper, "json" if chosen.json else chosen.format or "text")
    if chosen.format:
        raise BadInput("--format is for tables of papers: harness show paper NAME --format md")
    if len(chosen.what) == 2 and chosen.what[0] in ("method", "task", "recipe", "judge", "signal", "metric"):
        card = show.card(*chosen.what)
        return arguments.dump(card) if chosen.json else show.card_text(card)
    if len(chosen.what) != 1:
        raise BadInput("show takes a record, or method, task, recipe, paper, judge, signal or metric with a NAME")
    from harness.records.store import Store

    record = Store(chosen.results).get(chosen.what[0])
    return arguments.dump(record) if chosen.json else show.record_text(record)


def _command(chosen: argparse.Namespace) -> str:
    """The command line of a record; exit code 1 where it would make another run here, or where that is unknown."""
    from harness.records.store import Store
    from harness.rerun import command

    if len(chosen.what) != 1:
        raise BadInput("show --command takes one record: a run id, its beginning, or a record file")
    record = Store(chosen.results).get(chosen.what[0])
    with tempfile.TemporaryDirectory() as scratch:  # planning opens the answer file of a judge
        found = command.find(record, Path(scratch), verify.given_of(chosen), fetch=False)
    if not found.exact:
        print(f"harness: not shown to make {record['run_id']}: {printable(found.differs)}", file=sys.stderr)
        chosen.exit_code = 1
    said = command.line(found.request)
    return arguments.dump({"command": said, "exact": found.exact, "differs": found.differs}) if chosen.json else said
