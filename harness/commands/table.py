"""``harness table``: the leaderboard of the recorded results."""

from __future__ import annotations

import argparse
import json
from typing import Any

from harness import safe_read
from harness.commands import arguments
from harness.errors import BadInput, unknown
from harness.leaderboard import DEFAULT_UNIT, UNITS


def add(commands: argparse._SubParsersAction) -> None:
    command = arguments.command(
        commands,
        "table",
        "print the leaderboard of the recorded results",
        about="Prints the leaderboard of the recorded results, one section per task and protocol.",
        examples=(
            "harness table -t amc23",
            "harness table --view compute --cost tokens",
            "harness table --layout grid --format latex --label tab:main > table.tex",
        ),
    )
    arguments.names(command, "-t", "--task", metavar="T", kind="tasks", help="only these tasks")
    arguments.protocol_of_records(command)
    command.add_argument(
        "--format",
        choices=("terminal", "md", "csv", "json", "latex", "html"),
        help="default: terminal where stdout is one, else md",
    )
    arguments.names(command, "--columns", metavar="C", help="of a task's table: score, seeds, seconds, …")
    command.add_argument("--caption", metavar="TEXT", help="of a LaTeX table, instead of its title; LaTeX as it stands")
    command.add_argument("--label", metavar="NAME", help="of a LaTeX table (default: tab: and its title)")
    arguments.values(
        command,
        "--rename",
        metavar="OLD=NEW",
        help="names of methods, rows, columns and tasks in LaTeX; NEW is LaTeX as it stands",
    )
    arguments.view(command)
    command.add_argument("--cost", choices=UNITS, help="the unit of --view compute (default: flops)")
    command.add_argument(
        "--layout",
        choices=("both", "grid", "tasks"),
        help="grid: methods by tasks; tasks: one table per task (default: both; on a terminal the grid, for csv and "
        "json tasks)",
    )
    command.add_argument("--cards", action="store_true", help="also print the convention card of every row")
    command.add_argument("--reported", action="store_true", help="add the scores that papers report, unranked")
    arguments.results(command)
    command.set_defaults(command=call)


def call(args: argparse.Namespace) -> str:
    from harness.leaderboard import formats
    from harness.leaderboard.table import View, leaderboard, render
    from harness.records.record import measured_under
    from harness.records.store import Store, no_records

    arguments.check_view(args)
    arguments.check_cost(args)
    for name in args.columns:
        if name not in formats.COLUMNS:
            raise unknown("column", name, formats.COLUMNS)
    format = "json" if args.json else args.format or arguments.prose_format()
    data = format in ("csv", "json")
    wording = _wording(args, format)
    if data and args.columns:
        raise BadInput(f"--columns is for printed tables; --format {format} contains every field")
    if data and args.layout == "both":
        raise BadInput(f"--format {format} prints one table: choose --layout grid or --layout tasks")
    if args.columns and args.layout == "grid":
        raise BadInput("--columns chooses columns of a task's table; --layout grid prints none")
    store = Store(args.results)
    records, warnings = store.all()
    safe_read.warn(warnings)
    if not records and not args.reported:
        raise no_records(args.results)
    under = [record for record in records if measured_under(record, args.protocol)]
    if records and not under:
        known = sorted({record["protocol"]["hash"] for record in records})
        raise BadInput(f"--protocol {args.protocol}: no record was measured under it; known: {', '.join(known)}")
    records = under
    view = View(args.view, args.cost or DEFAULT_UNIT, args.anchor)
    # Reported scores of a task can be shown before anything was measured on it.
    tasks = None if args.reported and not records else args.task or None
    sections = leaderboard(records, tasks, store.completions, view)
    arguments.warn(formats.main_lines(sections)[1])
    terse = format == "terminal" and len(sections) > 1  # fits one screen; -t shows a task in full
    # Columns are those of a task's table, so who chooses some wants these tables.
    layout = args.layout or ("tasks" if data or args.columns else "grid" if terse else "both")
    parts: dict[str, bool] = {"tasks": layout != "grid", "cards": args.cards}
    parts["grid"] = layout == "grid" or (layout == "both" and len(sections) > 1)
    if not args.reported:
        return render(sections, format, columns=args.columns, width=arguments.width(), wording=wording, **parts)
    return _with_reported(args, sections, format, parts, wording)


def _wording(args: argparse.Namespace, format: str) -> Any:
    """The user's text for a LaTeX table. Raises BadInput for another format."""
    from harness.leaderboard.latex_tables import Wording

    flags = [f"--{flag}" for flag in ("caption", "label", "rename") if getattr(args, flag)]
    if flags and format != "latex":
        raise BadInput(f"{flags[0]} is for LaTeX; add --format latex")
    return Wording(args.caption, args.label, args.rename)


def _with_reported(args: argparse.Namespace, sections: list, format: str, parts: dict[str, bool], wording: Any) -> str:
    from harness.leaderboard import formats
    from harness.papers import printed_rows, side_by_side
    from harness.records import reported

    papers = reported.papers(args.results)
    if format in ("csv", "json") and parts["tasks"]:
        printed: list[dict[str, Any]] = side_by_side.objects(papers, formats.names(), args.task or None)
        rows = formats.row_dicts(sections) + printed
        return json.dumps(rows, indent=2, ensure_ascii=False) if format == "json" else formats.csv_text(rows)
    if format in ("csv", "json"):
        raise BadInput(f"--format {format} --layout grid holds measured rows only; use --layout tasks with --reported")
    # Numbers of papers that stand in files of their own, then those of printed tables.
    sources = (side_by_side.beside_measured, printed_rows.beside_measured)
    more = [table for source in sources if (table := source(papers, sections, args.task or None))]
    return formats.render(
        sections, format, more, columns=args.columns, width=arguments.width(), wording=wording, **parts
    )
