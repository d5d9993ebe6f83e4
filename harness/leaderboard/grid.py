"""One table of all tasks: rows by method, columns by task, each score with the half width of its interval.

Every column keeps its own protocol, best, second and ties. Scores are not averaged over tasks; lines are sorted by
mean rank.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from harness.leaderboard.rows import LeaderboardRow, Section, labels_of
from harness.leaderboard.text_tables import MISSING, RECONSTRUCTED


@dataclass(frozen=True)
class Line:
    """One method under one training recipe; ``cells`` by the title of the section, ``missing`` those without a cell.

    ``mean_rank`` is the mean over all tasks, among the lines that have a score on each. A line without a task has none,
    because a mean over fewer tasks cannot be compared with it.
    """

    label: str
    reference: bool
    reconstruction: bool
    cells: Mapping[str, LeaderboardRow]
    missing: tuple[str, ...] = ()
    mean_rank: float | None = None

    @property
    def name(self) -> str:
        return self.label + (RECONSTRUCTED if self.reconstruction else "")


def lines(sections: Sequence[Section]) -> list[Line]:
    """Joins the rows of all sections that have the same method, settings, models and recipe.

    Sorted by mean rank; then lines with missing tasks, by label; then references.
    """
    shown = main(sections)[0]
    names = labels_of(shown)
    by_key: dict[Any, dict[str, LeaderboardRow]] = {}
    for section in shown:
        for row in section.rows:
            by_key.setdefault(row.key, {})[section.title] = row
    found = []
    for key, cells in by_key.items():
        row = next(iter(cells.values()))
        missing = tuple(section.title for section in shown if section.title not in cells)
        found.append(Line(names[key], row.reference, row.reconstruction, cells, missing))
    ranked = [line for line in found if not line.reference and not line.missing]
    rest = sorted((line for line in found if line.reference or line.missing), key=lambda it: (it.reference, it.label))
    return [*sorted(_with_mean_ranks(ranked), key=lambda it: (it.mean_rank, it.label)), *rest]


def _with_mean_ranks(complete: Sequence[Line]) -> list[Line]:
    """The lines with their mean ranks; equal scores share a rank, as in a section."""
    ranks: list[list[int]] = [[] for _ in complete]
    for title in complete[0].cells if complete else ():
        scale = complete[0].cells[title].scale
        scores = [line.cells[title].score for line in complete]
        for place, score in zip(ranks, scores, strict=True):
            place.append(1 + sum(scale.gain(other, score) > 0 for other in scores))
    return [replace(line, mean_rank=fmean(place)) for line, place in zip(complete, ranks, strict=True)]


def missing_notes(found: Sequence[Line]) -> list[str]:
    """A note that names the lines without a mean rank and the cells that they lack."""
    lacking = [f"{line.label}: {', '.join(line.missing)}" for line in found if line.missing and not line.reference]
    return [f"{MISSING} not measured, so not ranked over all tasks: {'; '.join(lacking)}"] if lacking else []


def main(sections: Sequence[Section]) -> tuple[list[Section], list[str]]:
    """The sections of each task's main protocol, and a note on every other: columns never mix protocols.

    The main protocol is the one with the most records, the first of several.
    """
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for section in sections:
        counts[section.task][section.protocol] += sum(len(row.run_ids) for row in section.rows)
    chosen = {task: by_protocol.most_common(1)[0][0] for task, by_protocol in counts.items()}
    lines = []
    for section in sections:
        if section.protocol != chosen[section.task]:
            ids = [run_id for row in section.rows for run_id in row.run_ids]
            named = ", ".join(ids[:3]) + (f" and {len(ids) - 3} more" if len(ids) > 3 else "")
            lines.append(
                f"{section.task}: measured under another protocol than most records "
                f"({section.differs or section.protocol[:12]}), so left out of their table: {named}"
            )
    return [section for section in sections if section.protocol == chosen[section.task]], lines


def half_width(row: LeaderboardRow) -> float:
    """Half of the 95 % interval, as printed."""
    return row.scale.shown(row.high - row.low) / 2


def objects(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """One object per method with one per task: score, half_width, low, high as printed; rank, tied_with_best, seeds."""
    return [
        {
            "method": line.label,
            "kind": next(iter(line.cells.values())).kind,
            "reference": line.reference,
            "reconstruction": line.reconstruction,
            "mean_rank": line.mean_rank,
            "missing": list(line.missing),
            "tasks": {
                title: {
                    "score": row.scale.shown(row.score),
                    "half_width": half_width(row),
                    "low": row.scale.shown(row.low),
                    "high": row.scale.shown(row.high),
                    "rank": row.rank,
                    "tied_with_best": row.tied,
                    "seeds": len(row.seeds),
                }
                for title, row in line.cells.items()
            },
        }
        for line in lines(sections)
    ]
