"""What the rows of several sections are called where they stand together: on one sheet, in one legend."""

from __future__ import annotations

from collections.abc import Iterable

from harness.leaderboard import labels
from harness.leaderboard.rows import LeaderboardRow, Section
from harness.records.record import Record


def order(sections: Iterable[Section]) -> list[str]:
    """The labels of all trained rows, alone and together: a method has one colour in all figures."""
    sections = list(sections)
    together = labels_of(sections)
    rows = [row for section in sections for row in section.rows if not row.reference]
    return sorted({row.label for row in rows} | {together[row.key] for row in rows})


def labels_of(sections: Iterable[Section]) -> dict[tuple[str, ...], str]:
    """What each row is called where the rows of several sections stand together, by its key; no two alike.

    A section names only what is contested within it, so of one row the longest label tells most.
    """
    longest: dict[tuple[str, ...], tuple[LeaderboardRow, Record]] = {}
    for section in sections:
        for row in section.rows:
            known = longest.get(row.key)
            if known is None or len(row.label) > len(known[0].label):
                longest[row.key] = row, section.firsts[row.key]
    rows = [row for row, _ in longest.values()]
    details = labels.apart([(row.method, row.details) for row in rows], [first for _, first in longest.values()])
    return {row.key: labels.joined(row.method, words) for row, words in zip(rows, details, strict=True)}
