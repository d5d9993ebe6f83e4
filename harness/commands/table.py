"""``harness table``: the leaderboard of the recorded results."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from harness import safe_read
from harness.commands import arguments
from harness.errors import BadInput, unknown
from harness.safe_read import printable


def add(commands: argparse._SubParsersAction) -> None:
    command = arguments.command(
        commands,
        "table",
        "print the leaderboard of the recorded results",
        about="Prints the leaderboard of the recorded results, one section per task and protocol.",
        examples=(
            "harness table -t amc23",
            "harness table --view compute --cost tokens",
            "harness table --format latex > table.tex",
        ),
    )
    arguments.names(command, "-t", "--task", metavar="T", kind="tasks", help="only these tasks")
    arguments.protocol_of_records(command)
    command.add_argument(
        "--format",
        choices=("terminal", "md", "csv", "json", "latex", "html"),
        help="default: terminal where stdout is one, else md",
    )
    arguments.names(command, "--columns", metavar="C", kind="", help="of a task's table: score, seeds, seconds, …")
    arguments.view(command)
    command.add_argument("--cost", choices=arguments.UNITS, help="what --view compute counts (default: flops)")
    command.add_argument(
        "--layout",
        choices=("both", "grid", "tasks"),
        help="grid: methods by tasks; tasks: one table a task (default: both; on a terminal the grid, for csv and json "
        "tasks)",
    )
    command.add_argument("--cards", action="store_true", help="the convention card of every row, too")
    command.add_argument(
        "--reported", action="store_true", help="add the scores that papers report, ranked apart from ours"
    )
    arguments.results(command)
    command.set_defaults(command=call)


def call(chosen: argparse.Namespace) -> str:
    from harness.leaderboard import formats, grid
    from harness.leaderboard.table import View, leaderboard, render
    from harness.records.record import measured_under
    from harness.records.store import Store

    arguments.check_view(chosen)
    for name in chosen.columns:
        if name not in formats.COLUMNS:
            raise unknown("column", name, formats.COLUMNS)
    if chosen.cost and chosen.view != "compute":
        raise BadInput("--cost says what --view compute counts; give that too")
    format = "json" if chosen.json else chosen.format or arguments.prose_format()
    data = format in ("csv", "json")
    if data and chosen.columns:
        raise BadInput(f"--columns chooses those of a printed table; --format {format} holds every field")
    if data and chosen.layout == "both":
        raise BadInput(f"--format {format} holds one table: choose --layout grid or --layout tasks")
    store = Store(chosen.results)
    records, warnings = store.all()
    safe_read.warn(warnings)
    if not records and not chosen.reported:
        raise BadInput(f"no records in {chosen.results}; harness run makes them, --results names another folder")
    under = [record for record in records if measured_under(record, chosen.protocol)]
    if records and not under:
        known = sorted({record["protocol"]["hash"] for record in records})
        raise BadInput(f"--protocol {chosen.protocol}: no record was measured under it; known: {', '.join(known)}")
    records = under
    view = View(chosen.view, chosen.cost or "flops", chosen.anchor)
    # Reported scores of a task can be shown before anything was measured on it.
    tasks = None if chosen.reported and not records else chosen.task or None
    sections = leaderboard(records, tasks, store.completions, view)
    for line in grid.main(sections)[1]:
        print(f"warning: {printable(line)}", file=sys.stderr)
    terse = format == "terminal" and len(sections) > 1  # one screen; -t shows a task in full
    layout = chosen.layout or ("tasks" if data else "grid" if terse else "both")
    parts: dict[str, bool] = {"tasks": layout != "grid", "cards": chosen.cards}
    parts["grid"] = layout == "grid" or (layout == "both" and len(sections) > 1)
    if not chosen.reported:
        return render(sections, format, columns=chosen.columns, width=arguments.width(), **parts)
    return _with_reported(chosen, sections, format, parts)


def _with_reported(chosen: argparse.Namespace, sections: list, format: str, parts: dict[str, bool]) -> str:
    from harness.leaderboard import formats
    from harness.papers import beside_printed, side_by_side
    from harness.records import reported

    papers = reported.papers(chosen.results)
    if format in ("csv", "json") and parts["tasks"]:
        printed: list[dict[str, Any]] = side_by_side.objects(papers, formats.names(), chosen.task or None)
        rows = formats.row_dicts(sections) + printed
        return json.dumps(rows, indent=2, ensure_ascii=False) if format == "json" else formats.csv_text(rows)
    if format in ("csv", "json"):
        raise BadInput(f"--format {format} --layout grid holds measured rows only; use --layout tasks with --reported")
    sheets = [s.sheet(papers, sections, chosen.task or None) for s in (side_by_side, beside_printed)]
    more = [sheet for sheet in sheets if sheet]
    return formats.render(sections, format, more, columns=chosen.columns, width=arguments.width(), **parts)
