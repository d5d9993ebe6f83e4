"""``harness list``: methods, tasks, recipes, papers, judges, signals, metrics."""

from __future__ import annotations

import argparse

from harness.commands import arguments

KINDS = ("methods", "tasks", "recipes", "papers", "judges", "signals", "metrics")


def add(commands: argparse._SubParsersAction) -> None:
    command = arguments.command(
        commands,
        "list",
        "methods, tasks, recipes, papers, judges, signals, metrics",
        about="Lists what the harness has: all kinds, or one with a line for each.",
        examples=("harness list", "harness list methods", "harness list papers --json"),
    )
    command.add_argument("kind", nargs="?", type=_kind, choices=KINDS, help="default: the names of every kind")
    arguments.results(command)
    command.set_defaults(command=call)


def _kind(word: str) -> str:
    """``method`` means ``methods``, as in ``harness show method NAME``."""
    return f"{word}s" if f"{word}s" in KINDS else word


def call(args: argparse.Namespace) -> str:
    if args.kind is None:
        from harness import show

        known = show.overview(args.results)
        return arguments.dump(known) if args.json else arguments.fitted(show.overview_text(known))
    if args.kind == "papers":
        from harness.papers import tables
        from harness.records import reported

        papers = tables.listing(reported.papers(args.results))
        return arguments.dump(papers) if args.json else tables.listing_text(papers)
    from harness import show

    rows = show.rows(args.kind)
    return arguments.dump(rows) if args.json else arguments.fitted(show.text(args.kind, rows))
