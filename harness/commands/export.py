"""``harness export``: results as tables for other tools, or one trained student with its model card."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness import safe_read
from harness.commands import arguments
from harness.errors import BadInput

FORMATS = ("parquet", "datasets")


def add(commands: argparse._SubParsersAction) -> None:
    command = arguments.command(
        commands,
        "export",
        "export results as parquet or datasets; or export RUN_ID: a trained student",
        about="Exports all results as parquet or as a data set, or one trained student with its model card.",
        examples=(
            "harness export --out results.parquet",
            "harness export --format datasets --out my-results/",
            "harness export RUN_ID --out my-student/",
        ),
    )
    command.add_argument(
        "record", nargs="?", metavar="RUN_ID", help="export the student that this record measured, with its model card"
    )
    command.add_argument(
        "--weights",
        choices=("merged", "adapter"),
        help="of a student with an adapter: the whole model with the adapter merged (default), or only the adapter",
    )
    command.add_argument("--format", choices=FORMATS, help="format of the results (default: parquet)")
    command.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="a new folder, or a .parquet file of the records"
    )
    arguments.results(command)
    command.set_defaults(command=call)


def call(args: argparse.Namespace) -> str:
    if args.record:
        if args.format:
            raise BadInput("--format is for the results; a student is a transformers folder as it is")
        from harness.records.store import Store
        from harness.reports.export import student

        out = student.export(Store(args.results), args.record, args.out, args.weights or student.MERGED)
    else:
        if args.weights:
            raise BadInput("--weights is for one student: give its RUN_ID")
        from harness.reports.export import tables

        left_out: list[str] = []
        try:
            out = tables.export(args.results, args.out, args.format or "parquet", left_out.append)
        finally:  # what was left out explains why nothing is left
            safe_read.warn(left_out)
    return arguments.dump({"out": str(out)}) if args.json else str(out)
