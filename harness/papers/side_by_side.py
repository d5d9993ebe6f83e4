"""A table of reported numbers, each with our measured rows; reported numbers are never ranked."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from harness import registry
from harness.leaderboard.rows import LeaderboardRow, Section
from harness.leaderboard.text_tables import Table, plain
from harness.records import reported
from harness.records.reported import Paper

UNMEASURED = "not measured here"


def beside_measured(
    papers: Sequence[Paper], sections: Sequence[Section], tasks: Collection[str] | None = None
) -> Table | None:
    """The printed cells for ``tasks`` (None: all), with our rows of the same method on the same benchmark.

    Generated problems are not the benchmark, so their scores are not compared with a printed number.
    """
    rows = []
    for paper, cell in _cells(papers, tasks):
        n, count, error = cell["n"]["value"], cell["count"]["value"], reported.standard_error(cell)
        ours = [row for section in sections for row in section.rows if _same(row, paper, cell)]
        rows.append(
            plain(
                f"{paper['id']}: {cell['dataset']}",
                cell["task"],
                f"{cell['value']['value']:g}" + (f" ±{error:.1f}" if error is not None else ""),
                f"{count}/{n} ({cell['count']['status']})" if count is not None else f"n = {n}" if n else "",
                "; ".join(map(_interval, ours)) or UNMEASURED,
                _fact_text(cell["decoding"]),
                _fact_text(cell["judge"]) if _judged(cell) else "",
                f"{_fact_text(cell['student'])} <- {_fact_text(cell['teacher'])}",
            )
        )
    if not rows:
        return None
    header = ["reported", "task", "value ± SE", "count", "ours (measured)", "decoding", "judge", "student <- teacher"]
    shown = [paper for paper in papers if any(True for _ in _cells([paper], tasks))]
    notes = [f"{paper['id']}: {paper['title']}. {paper['about']}" for paper in shown]
    notes.append("SE: binomial, from n. Reported values take no part in any rank, test or mean.")
    return Table("Reported by papers, not measured here", "", header, rows, notes, words=True, below=range(5, 8))


def objects(papers: Sequence[Paper], like: Sequence[str], tasks: Collection[str] | None = None) -> list[dict[str, Any]]:
    """The printed cells as rows of a leaderboard's JSON, under its keys ``like``: kind is "reported", no rank."""
    rows = []
    for paper, cell in _cells(papers, tasks):
        known = {
            **reported.row_of(paper, cell),
            "label": f"{paper['method']} as reported ({cell['id']})",
            "note": paper["about"],
            "notes": [f"{key}: {cell[key]['status']}, {cell[key]['source']}" for key in reported.FACTS],
        }
        rows.append({key: known.get(key) for key in like})
    return rows


def facts(paper: Paper) -> str:
    """All facts of the cells, each with its status and source."""
    lines = [f"How the facts of {paper['method']}'s cells are known"]
    for cell in paper["cells"]:
        error = reported.standard_error(cell)
        lines += ["", f"{cell['id']}  {cell['dataset']} (task {cell['task']})" + (f", SE {error:.1f}" if error else "")]
        for key in reported.FACTS:
            fact = cell[key]
            value = "-" if fact["value"] is None else fact["value"]
            lines.append(f"  {key:<10}{value}  [{fact['status']}: {fact['source']}]")
    return "\n".join(lines)


def _cells(papers: Sequence[Paper], tasks: Collection[str] | None) -> Iterator[tuple[Paper, dict[str, Any]]]:
    task_names = None if tasks is None else {task.partition("@")[0] for task in tasks}
    for paper in papers:
        for cell in paper["cells"]:
            if task_names is None or cell["task"] in task_names:
                yield paper, cell


def _judged(cell: Mapping[str, Any]) -> bool:
    """Whether a judge decides the cell's score: its task needs one, or the paper names one."""
    names = {entry.name for entry in registry.entries(registry.TASKS)}
    needed = cell["task"] in names and registry.find(registry.TASKS, cell["task"]).needs_judge
    return needed or cell["judge"]["value"] is not None


def _interval(row: LeaderboardRow) -> str:
    return f"{row.scale.text(row.score)} [{row.scale.text(row.low)}–{row.scale.text(row.high)}]"


def _same(row: LeaderboardRow, paper: Mapping[str, Any], cell: Mapping[str, Any]) -> bool:
    return row.task == cell["task"] and row.method.partition("@")[0] == paper["method"] and not row.reference


def _fact_text(fact: Mapping[str, Any]) -> str:
    return "unknown" if fact["value"] is None else f"{fact['value']} ({fact['status']})"
