"""``harness export``: results as tables for other tools, or one trained student with its card; to disk or a hub."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from harness import __version__, safe_read
from harness.commands import arguments
from harness.errors import BadInput

FORMATS = ("parquet", "datasets")


def add(commands: argparse._SubParsersAction) -> None:
    command = arguments.command(
        commands,
        "export",
        "export results as parquet or datasets; or export RUN_ID: a trained student",
        about="Exports all results as parquet or as a data set, or one trained student with its model card;\n"
        "to disk, or in one commit to a repository of a hub.",
        examples=(
            "harness export --out results.parquet",
            "harness export RUN_ID --out my-student/",
            "harness export RUN_ID --push owner/name",
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
    command.add_argument("--out", type=Path, metavar="DIR", help="a new folder, or a .parquet file of the records")
    command.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="a repository of the hub (HF_ENDPOINT), made if missing: private, one commit",
    )
    command.add_argument("--public", action="store_true", help="make the repository of --push public")
    command.add_argument("--again", action="store_true", help="push a new commit on top of files that are there")
    command.add_argument(
        "--license", metavar="ID", help="of the student, as hubs name it (default: what the base model's card says)"
    )
    arguments.results(command)
    command.set_defaults(command=call)


def call(args: argparse.Namespace) -> str:
    if not args.out and not args.push:
        raise BadInput("no destination; give --out DIR, --push OWNER/NAME, or both")
    for flag in ("public", "again"):
        if getattr(args, flag) and not args.push:
            raise BadInput(f"--{flag} is for --push OWNER/NAME")
    if args.record and args.format:
        raise BadInput("--format is for the results; a student is always a transformers folder")
    for flag in ("weights", "license"):
        if getattr(args, flag) and not args.record:
            raise BadInput(f"--{flag} is for one student: give its RUN_ID")
    if not args.push:
        out = _write(args, args.out)
        return arguments.dump({"out": str(out)}) if args.json else str(out)
    if args.out and args.out.suffix == ".parquet":
        raise BadInput("--push takes a folder; name one with --out, or leave it out")

    from harness.reports.export import hub

    # Ask the hub first, so that a taken name fails early; change it last.
    to = hub.target(args.push, "model" if args.record else "dataset", args.public, args.again)
    with tempfile.TemporaryDirectory(prefix="harness-push-") as scratch:
        out = _write(args, args.out or Path(scratch) / "export")
        address = hub.push(out, to, f"Exported by reasoning-distillation-harness {__version__}")
    places = {"pushed": address} | ({"out": str(args.out)} if args.out else {})
    return arguments.dump(places) if args.json else "\n".join(places.values())


def _write(args: argparse.Namespace, out: Path) -> Path:
    """Writes the student or the results to ``out``."""
    if args.record:
        from harness.records.store import Store
        from harness.reports.export import student

        return student.export(Store(args.results), args.record, out, args.weights or student.MERGED, args.license)
    from harness.reports.export import tables

    left_out: list[str] = []
    try:
        return tables.export(args.results, out, args.format or "parquet", left_out.append)
    finally:  # the skipped files explain why no record remains
        safe_read.warn(left_out)
