"""All tasks on one sheet: rows by method, columns by task, each score with the half width of its interval.

Every column keeps its own protocol, best, second and ties; nothing is averaged over tasks.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.leaderboard.rows import Row, Section
from harness.leaderboard.sheets import RECONSTRUCTED


@dataclass(frozen=True)
class Line:
    """One method under one training recipe; ``cells`` by the title of the section."""

    label: str
    reference: bool
    reconstruction: bool
    cells: Mapping[str, Row]

    @property
    def name(self) -> str:
        return self.label + (RECONSTRUCTED if self.reconstruction else "")


def lines(sections: Sequence[Section]) -> list[Line]:
    """The rows of all sections, joined where method, settings, models and recipe are the same; best mean rank first."""
    by_key: dict[Any, dict[str, Row]] = {}
    for section in main(sections)[0]:
        for row in section.rows:
            by_key.setdefault(row.key, {})[section.title] = row
    found = []
    for cells in by_key.values():
        rows = list(cells.values())
        label = max((row.label for row in rows), key=len)  # a section names only what is contested within it
        found.append(Line(label, rows[0].reference, rows[0].reconstruction, cells))
    return sorted(found, key=_order)


def main(sections: Sequence[Section]) -> tuple[list[Section], list[str]]:
    """The sections of each task's main protocol, and a line on every other: columns never mix protocols.

    The main protocol is the one with most records, of equals the first.
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
                f"{section.task}: of another protocol than most records ({section.differs or section.protocol[:12]}), "
                f"so left out of their table: {named}"
            )
    return [section for section in sections if section.protocol == chosen[section.task]], lines


def _order(line: Line) -> tuple:
    ranks = [row.rank for row in line.cells.values() if row.rank is not None]
    return line.reference, sum(ranks) / len(ranks) if ranks else 0.0, line.label


def half_width(row: Row) -> float:
    """Half of the 95 % interval, in points."""
    return 50 * (row.high - row.low)


def objects(sections: Sequence[Section]) -> list[dict[str, Any]]:
    """One object a method with one object a task: score, half_width, rank, tied_with_best, seeds, all in percent."""
    return [
        {
            "method": line.label,
            "kind": next(iter(line.cells.values())).kind,
            "reference": line.reference,
            "reconstruction": line.reconstruction,
            "tasks": {
                title: {
                    "score": 100 * row.score,
                    "half_width": half_width(row),
                    "rank": row.rank,
                    "tied_with_best": row.tied,
                    "seeds": len(row.seeds),
                }
                for title, row in line.cells.items()
            },
        }
        for line in lines(sections)
    ]
