"""``harness show``: a record, or the card of a method, task, recipe or paper."""

from __future__ import annotations

import argparse

from harness.commands import words
from harness.errors import BadInput


def add(commands: argparse._SubParsersAction) -> None:
    command = commands.add_parser("show", help="a record; or: show method|task|recipe|paper NAME")
    command.add_argument("what", nargs="+", metavar="RECORD|RUN_ID", help="a record file, a run id or its beginning")
    words.results(command)
    command.set_defaults(command=call)


def call(chosen: argparse.Namespace) -> str:
    from harness import listing

    if len(chosen.what) == 2 and chosen.what[0] == "paper":
        from harness.papers import beside, reported

        paper = reported.find(chosen.what[1], chosen.results)
        return words.dump(paper) if chosen.json else beside.card(paper)
    if len(chosen.what) == 2 and chosen.what[0] in ("method", "task", "recipe"):
        card = listing.card(*chosen.what)
        return words.dump(card) if chosen.json else listing.card_text(card)
    if len(chosen.what) != 1:
        raise BadInput("show takes a record, or: method NAME, task NAME, recipe NAME, paper NAME")
    from harness.records.store import Store

    record = Store(chosen.results).get(chosen.what[0])
    return words.dump(record) if chosen.json else listing.record_text(record)
