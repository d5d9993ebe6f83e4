"""The front page: methods by tasks with their average rank, at equal compute first, then at equal steps, then all rows.

Every cell links to its task. Rows left out of the tables, and notes for readers, are below them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from harness.leaderboard import ALL, COMPUTE, STEPS, formats, labels
from harness.leaderboard.formats import GridLine, render
from harness.leaderboard.rows import Section
from harness.reports.board import formatting
from harness.reports.board.pages import Site

NAMES = {COMPUTE: "Equal compute", STEPS: "Equal steps", ALL: "All rows"}
LONG = 13  # characters of a task's name; two longer ones fit next to each other on a phone
LEADS = {COMPUTE: "at equal compute", STEPS: "at equal steps", ALL: "among all rows"}


def write(site: Site) -> None:
    """Writes ``index.html``."""
    records = [record["content_sha256"] for record in site.records]
    papers = [paper["id"] for paper in site.papers]
    copies_file(site, "c-index", [records, site.warnings], site.views, of_tasks=False)
    site.page("index.html", "index.html.j2", "board", [records, site.warnings, papers], lambda: _context(site))


def _context(site: Site) -> dict[str, Any]:
    notes = list(dict.fromkeys(note for sections in site.views.values() for s in sections for note in s.notes))
    first = {kind: note for kind, sections in site.views.items() for note in (sections[0].view,) if note}
    return {
        "title": "Overview",
        "here": "index",
        "views": [_view(site, kind, sections) for kind, sections in site.views.items()],
        "names": NAMES,
        "budgets": first,
        "copies": "c-index",
        "notes": [note for note in notes if not note.startswith("left out, not ")],
        "warnings": site.warnings,
        "tasks": [(section.title, formatting.task_file(section.task, section.protocol)) for section in site.sections],
        "facts": {
            "records": len(site.records),
            "seeds": len({record["seed"] for record in site.records}),
            "newest": max((record["created"][:10] for record in site.records), default=""),
        },
    }


def _view(site: Site, kind: str, sections: Sequence[Section]) -> dict[str, Any]:
    shown, other = formats.main_lines(sections)
    lines = formats.grid_lines(sections)
    worlds = {section.task.partition("@")[1:] for section in shown}
    columns = [
        {
            "title": section.title,
            "name": section.task,
            "short": section.task.partition("@")[0] if len(worlds) == 1 else section.task,
            "file": formatting.task_file(section.task, section.protocol),
            "about": f"{section.metric}, {section.problems} problems",
            "axis": formatting.axis_around([row for row in section.rows if not row.reference] or section.rows),
        }
        for section in shown
    ]
    unranked = [line for line in lines if line.mean_rank is None and not line.reference]
    unranked.sort(key=lambda line: _place(line, shown))
    ranked = sorted((line for line in lines if line.mean_rank is not None), key=lambda line: line.mean_rank)
    return {
        "kind": kind,
        "heading": _heading(kind, ranked, shown),
        "summary": _summary(kind, ranked, shown),
        "columns": columns,
        "lines": [*(line for line in lines if line.mean_rank is not None and not line.reference), *unranked],
        "marks": [line for line in lines if line.reference],
        "ranked": len(ranked) if len(shown) > 1 else 0,  # the rank on one task is the order of its rows
        "long": any(len(column["short"]) > LONG for column in columns),
        "other": other,
        "aside": list(dict.fromkeys(note for section in shown for note in section.aside)),
    }


def _place(line: GridLine, shown: Sequence[Section]) -> tuple[Any, ...]:
    """Sorts lines without a rank: lines of the same tasks and models together, the best first."""
    rows = [line.cells.get(section.title) for section in shown]
    first = next(((row.scale.place(row.score)) for row in rows if row is not None), 0.0)
    return [row is None for row in rows], re.findall(r"(?:student|teacher)\.id=[^,)]+", line.name), first


def _heading(kind: str, ranked: Sequence[GridLine], shown: Sequence[Section]) -> str:
    """The answer in a few words: the method that ranks first."""
    best = [line for line in ranked if line.mean_rank == ranked[0].mean_rank]
    if not best or len(ranked) < 2:
        return f"Results {LEADS[kind]}"
    short = [formatting.name_part(line.name) for line in best]
    names = [labels.plain_label(line.name) for line in best] if len(set(short)) < len(short) else short
    leaders = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    leaders = leaders if len(names) < 4 else f"{len(names)} methods"
    verb = "ranks" if len(best) == 1 else "rank"
    return f"{leaders} {verb} first {LEADS[kind]}"


def _summary(kind: str, ranked: Sequence[GridLine], shown: Sequence[Section]) -> str:
    """How clear the answer is: the average rank, and the rows of each task not distinguishable from its best."""
    if len(ranked) < 2:
        return (
            "" if len(shown) < 2 else "No two methods are measured on every task, so none is ranked over all of them."
        )
    tied = []
    for section in shown:
        competitors = [row for row in section.rows if not row.reference]
        some = sum(row.tied for row in competitors)
        if some:
            tied.append(f"{some} of {len(competitors) - 1} others on {section.task}")
    if len(shown) == 1:
        return f"{tied[0]} are not distinguishable from it." if tied else "It is distinguishable from all others."
    text = f"Average rank {ranked[0].mean_rank:.1f} of {len(ranked)} over {_many(len(shown), 'task')}."
    return text + (f" Not distinguishable from the best of a task: {', '.join(tied)}." if tied else
                   " On every task the best is distinguishable from all others.")  # fmt: skip


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def copies_file(site: Site, name: str, key: Any, views: Mapping[str, Sequence[Section]], of_tasks: bool) -> None:
    """Writes the data of the copy buttons, loaded on demand: the table of each view as CSV and as LaTeX."""
    site.data(
        name, key,
        lambda: {
            kind: {
                "CSV": render(sections, "csv", tasks=of_tasks),
                "LaTeX": render(sections, "latex", grid=not of_tasks, tasks=of_tasks),
            }
            for kind, sections in views.items()
        },
    )  # fmt: skip
