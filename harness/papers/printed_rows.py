"""Cells of a printed table as runs: the method and task for each, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from harness import registry
from harness.errors import BadInput, unknown
from harness.leaderboard.rows import LeaderboardRow, Section
from harness.leaderboard.text_tables import Table, plain
from harness.papers import spec
from harness.papers.side_by_side import UNMEASURED
from harness.papers.spec import ModelPair
from harness.records import printed
from harness.records.printed import PrintedCell
from harness.records.reported import KIND, Paper


@dataclass(frozen=True)
class PrintedRow:
    """A printed cell that a pair reproduces, under the harness' names."""

    cell: str  # pair/row/benchmark, as --only takes it
    pair: ModelPair
    method: str
    task: str
    theirs: PrintedCell

    def lacks(self) -> str:
        """Why it cannot be run; empty if method and task are available."""
        for kind, what, name in (
            (registry.METHODS, "method", self.method.partition("@")[0]),
            (registry.TASKS, "task", self.task.removesuffix("@real")),
        ):
            if name not in {entry.name for entry in registry.entries(kind)}:
                return f"there is no {what} {name} here"
        return ""


def printed_rows_of(pair: ModelPair, paper: Paper) -> list[PrintedRow]:
    """The rows of a pair, in the order of its file. Raises BadInput for a row or benchmark that the table lacks."""
    if (place := pair.printed) is None:
        return []
    table = {(c.method, c.benchmark): c for c in printed.of(paper)
             if (c.locator, c.student, c.setting) == (place.locator, place.student, place.setting)
             and place.teacher in ("", c.teacher)}  # fmt: skip
    if not table:
        pupil = f"{place.student!r}" + (f" of {place.teacher!r}" if place.teacher else "")
        raise BadInput(f"pair {pair.name}: paper {paper['id']} prints no {place.locator!r} for {pupil}")
    for names, known, what in (
        (place.rows, {method for method, _ in table}, "row"),
        (place.benchmarks, {benchmark for _, benchmark in table}, "benchmark"),
    ):
        for name in names:
            if name not in known:
                raise unknown(f"{what} of {place.locator} for pair {pair.name}", name, known)
    return [
        PrintedRow(f"{pair.name}/{row}/{benchmark}", pair, method, task, table[row, benchmark])
        for row, method in place.rows.items()
        for benchmark, task in place.benchmarks.items()
        if (row, benchmark) in table
    ]


# Cells of printed tables next to records of the same method on the same task, and what differs; never in one ranking.
#
# A printed table has its own names for methods and benchmarks; the papers' files map them to ours.


def rows_beside(papers: Sequence[Paper], tasks: Collection[str] | None) -> Iterator[PrintedRow]:
    """The printed cells that stand for ``tasks`` (None: all) under the harness' names."""
    known = {paper["id"]: paper for paper in papers}
    task_names = None if tasks is None else {task.removesuffix("@real") for task in tasks}
    for name in spec.names():
        paper_spec = spec.load(name)
        if paper_spec.reported not in known:
            continue
        for pair in paper_spec.pairs:
            yield from (
                r
                for r in printed_rows_of(pair, known[paper_spec.reported])
                if task_names is None or r.task in task_names
            )


def beside_measured(
    papers: Sequence[Paper], sections: Sequence[Section], tasks: Collection[str] | None = None
) -> Table | None:
    """A table of the printed cells for the measured or named tasks, with our rows and the differences to them."""
    real = {section.task for section in sections}
    lines = []
    for row in rows_beside(papers, tasks or real):
        ours = [(s, r) for s in sections for r in s.rows if s.task == row.task and r.method == row.method]
        cell = row.theirs
        error = standard_error(row)
        lines.append(
            plain(
                f"{cell.paper}: {cell.locator}, {cell.method}",
                row.task,
                cell.text + (f" ±{error:.1f}" if error is not None else "") + ("?" if cell.doubt else ""),
                "; ".join(f"{s.scale.text(r.score)} [{s.scale.text(r.low)}–{s.scale.text(r.high)}]" for s, r in ours)
                or UNMEASURED,
                row.method,
                f"{cell.student} <- {cell.teacher}",
                "; ".join(dict.fromkeys(words for s, r in ours for words in differences(row, s, r))),
            )
        )
    if not lines:
        return None
    header = ["printed", "task", "value ± SE", "ours (measured)", "method here", "student <- teacher", "what differs"]
    notes = ["Printed cells take no part in any rank, test or mean. ?: the collection marks the cell as doubtful."]
    title = "Printed in papers' tables, not measured here"
    return Table(title, "", header, lines, notes, words=True, below=range(4, 7))


def differences(row: PrintedRow, section: Section, ours: LeaderboardRow) -> list[str]:
    """The differences between a record and the printed cell, as far as the paper states them."""
    models, cell = row.pair.table()["models"], row.theirs
    protocol = section.firsts[ours.key]["protocol"]
    lines = [
        f"{side}: {theirs} there, {mine or 'none'} here"
        for side, theirs, mine in (
            ("student", models.get("student"), ours.student),
            ("teacher", models.get("teacher"), ours.teacher),
        )
        if theirs != mine
    ]
    samples = protocol.get("decoding", {}).get("samples")
    if cell.samples and samples and cell.samples != samples:
        lines.append(f"completions a problem: {cell.samples} there, {samples} here")
    if cell.n and cell.n != section.problems:
        lines.append(f"problems: {cell.n} there, {section.problems} here")
    judge = protocol.get("grader", {}).get("judge")
    if cell.judge and judge is not None and cell.judge.casefold() not in str(judge).casefold():
        lines.append(f"judge: {cell.judge} there, {judge.get('model', judge.get('kind', 'another'))} here")
    return lines or ["no stated differences"]


def standard_error(row: PrintedRow) -> float | None:
    """The binomial standard error of a printed share, in points; None if it is not a share or n is unknown."""
    share, n = row.theirs.value / 100, row.theirs.n
    if row.theirs.unit != "percent" or not n or not 0 <= share <= 1:
        return None
    return 100 * math.sqrt(share * (1 - share) / n)


def objects_beside(
    papers: Sequence[Paper], like: Sequence[str], tasks: Collection[str] | None = None
) -> list[dict[str, Any]]:
    """The printed cells as rows of a leaderboard's JSON, under its keys ``like``: kind is "reported", no rank."""
    objects = []
    for row in rows_beside(papers, tasks):
        cell = row.theirs
        known = {
            "task": row.task,
            "metric": cell.metric,
            "kind": KIND,
            "method": row.method,
            "label": f"{cell.method} as printed ({cell.paper}, {cell.locator})",
            "student": cell.student,
            "teacher": cell.teacher,
            "score": cell.value / 100,
            "total": cell.n,
            "note": "; ".join(filter(None, (cell.status, cell.note))),
        }
        objects.append({key: known.get(key) for key in like})
    return objects
