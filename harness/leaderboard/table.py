"""The results as tables: one flat frame of all records, and leaderboards that never mix protocols.

    frame = harness.load_results("results")                      pandas, one row per record
    print(render(leaderboard(records, ["humaneval"], store.completions), "md"))

The other modules of this package: ``rows`` (which records form a row), ``equal_compute`` (which rows stand together),
``inference`` (intervals and tests), ``labels`` (names of rows), ``compare`` and ``together`` (whether two rows differ),
``formats``, ``text_tables`` and ``latex_tables`` (how tables are printed).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput
from harness.leaderboard.equal_compute import View
from harness.leaderboard.formats import render, row_dicts, update_between_markers
from harness.leaderboard.labels import name_of
from harness.leaderboard.rows import LeaderboardRow, Section, latest, leaderboard
from harness.records import default_folder
from harness.records import reported as papers
from harness.records.record import Record, roles_of
from harness.records.store import Store

if TYPE_CHECKING:
    import pandas

__all__ = [
    "LeaderboardRow",
    "Section",
    "View",
    "frame_of",
    "leaderboard",
    "load_results",
    "render",
    "row_dicts",
    "update_between_markers",
]

COLUMNS = {
    "run_id": "name of the record",
    "task": "title of the task; generated problems carry @micro",
    "world": "real or micro",
    "family": "maths, code, instruction, or another that a task names",
    "metric": "accuracy, pass@1, win_rate, or another that a task names",
    "protocol": "hash; scores compare only under equal ones",
    "kind": "measured, or reported by a paper",
    "method": "with its variant: NAME@shuffled",
    "role": "competitor, control, or reference: a model evaluated without training",
    "reconstruction": "whether the method's published formula was not available to us",
    "settings": "the method's hyper-parameters, JSON",
    "seed": "training seed",
    "student": "id of the student",
    "teacher": "id of the teacher, or missing",
    "training_id": "shared by the records of one trained student",
    "score": "in the range of its metric, [0, 1] for those that ship",
    "low": "lower end of the 95 % interval",
    "high": "upper end of the 95 % interval",
    "correct": "sum of scores over completions",
    "total": "completions graded",
    "errors": "completions whose grading failed",
    "truncated": "completions cut at the length limit",
    "teacher_forward_tokens": "through the teacher in training",
    "generated_tokens": "sampled for training",
    "student_tokens": "through the student in training",
    "seconds": "of training, wall clock",
    "peak_memory_bytes": "of training",
    "eval_seconds": "of evaluation, wall clock",
    "eval_generated_tokens": "sampled in evaluation",
    "steps": "optimizer steps",
    "attempt": "0, then 1, 2, … for repeated runs",
    "latest": "whether no later attempt supersedes this one",
    "created": "UTC time, timezone-aware",
    "commit": "of the sources, or missing",
    "dirty": "whether the sources differed from the commit, or missing",
}


def load_results(root: Path | str | None = None, reported: bool = False) -> pandas.DataFrame:
    """One row per record below ``root``, with exactly the columns of :data:`COLUMNS`, in that order.

    ``root`` None is the folder of the commands, ``HARNESS_RESULTS`` or ``results``.

    ``reported`` adds a row for every cell that a paper prints, with ``kind`` "reported" and missing values for what the
    paper does not state; never average over both kinds. Each unsound record is left out with a Python
    warning; a missing folder gives a warning, too. Raises BadInput when ``root`` is a file, when two records claim one
    identity, or when a reported file is malformed.
    """
    root = default_folder() if root is None else root
    store = Store(root)
    if store.root.is_file():
        raise BadInput(f"{root} is a file; name the results folder that holds records/")
    if not store.root.exists():
        warnings.warn(f"{root} does not exist, so no record is read; name a results folder", stacklevel=2)
    records, faults = store.all()
    for fault in faults:
        warnings.warn(fault, stacklevel=2)
    cells = [(paper, cell) for paper in papers.papers(root) for cell in paper["cells"]] if reported else []
    return frame_of(records, [_reported(*cell) for cell in cells])


def frame_of(records: Sequence[Record], more: Sequence[dict[str, Any]] = ()) -> pandas.DataFrame:
    """The records as a frame with the columns of :data:`COLUMNS`, then the rows ``more``, which have these fields."""
    import pandas

    current = {record["run_id"] for record in latest(records)}
    rows = [_flat(record) | {"latest": record["run_id"] in current} for record in records]
    frame = pandas.DataFrame([*rows, *more], columns=list(COLUMNS))
    return frame.assign(created=pandas.to_datetime(frame["created"], utc=True))


def _flat(record: Record) -> dict[str, Any]:
    """The fields of a record and of its parts, under the names of COLUMNS."""
    low, high = record["interval"]
    return (
        record
        | record["counts"]
        | record["cost"]
        | {
            "method": name_of(record["method"]),
            "role": roles_of(record).role,
            "reconstruction": record["method"]["reconstruction"],
            "settings": json.dumps(record["method"]["settings"], sort_keys=True),
            "protocol": record["protocol"]["hash"],
            "low": low,
            "high": high,
            "commit": record["provenance"].get("commit"),
            "dirty": record["provenance"].get("dirty"),
        }
    )


def _reported(paper: dict[str, Any], cell: dict[str, Any]) -> dict[str, Any]:
    """A printed cell under the names of COLUMNS; what the paper does not state is missing."""
    known = {"run_id": f"reported:{paper['id']}/{cell['id']}", "world": "real", "family": cell["family"]}
    return known | papers.row_of(paper, cell)
