"""Reads the cells of a paper in one form, from a printed table or with a source for every fact.

:func:`of` reads both parts of a paper's file, so that tables and audit need not distinguish them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

DOUBT = re.compile(r"one source|SUSPICIOUS|EXTRAPOLATED|to be checked|check in the|uncertain|LATER VERSIONS", re.I)
_Key = TypeVar("_Key")


@dataclass(frozen=True)
class PrintedCell:
    """One number as printed. ``text`` keeps its decimals; ``n`` counts problems, ``samples`` completions a problem."""

    paper: str  # id of the file
    source: str  # id of the source within it
    locator: str
    setting: str
    method: str
    student: str
    teacher: str
    benchmark: str
    metric: str
    unit: str
    text: str
    n: int | None
    samples: int | None
    judge: str
    seeds: str
    spread: str  # standard deviation over seeds as printed, in the unit of the value; empty if none
    version: str
    status: str
    note: str

    @cached_property
    def value(self) -> float:
        """The number: 130*8 is 1040, ~70 is 70."""
        first, _, times = self.text.lstrip("~").partition("*")
        return float(first) * (float(times) if times else 1.0)

    @cached_property
    def decimals(self) -> int:
        """The number of decimals printed."""
        return len(re.sub(r"[e*].*", "", self.text).partition(".")[2])

    @property
    def step(self) -> float:
        """The smallest difference that the printed decimals can show."""
        return 10.0**-self.decimals

    @property
    def exact(self) -> bool:
        """Whether the paper prints the value without "about"."""
        return not self.text.startswith("~")

    @property
    def doubt(self) -> str:
        """Status and note if the cell is not well attested; empty otherwise."""
        return "; ".join(words for words in (self.status, self.note) if DOUBT.search(words))

    @property
    def table(self) -> tuple[str, str]:
        """Identifies the printed table of the cell."""
        return self.source, self.locator

    @property
    def key(self) -> tuple[str, ...]:
        """Identifies the cell within its file."""
        return (
            *(self.source, self.locator, self.setting, self.method),
            *(self.student, self.teacher, self.benchmark, self.metric),
        )

    @property
    def name(self) -> str:
        """The cell for people, in one line."""
        extra = f", {self.setting}" if self.setting else ""
        return f"{self.locator}: {self.method}, {self.student}, {self.benchmark} ({self.metric}{extra})"


def of(paper: Mapping[str, Any]) -> list[PrintedCell]:
    """All cells of a paper's file, printed tables first."""
    return [*(_printed(paper, cell) for cell in paper.get("printed", [])), *_stated(paper)]


def grouped(cells: Iterable[PrintedCell], key: Callable[[PrintedCell], _Key]) -> dict[_Key, list[PrintedCell]]:
    """Cells by ``key``, in the order in which they first appear."""
    groups: dict[_Key, list[PrintedCell]] = {}
    for cell in cells:
        groups.setdefault(key(cell), []).append(cell)
    return groups


def sources(paper: Mapping[str, Any]) -> Sequence[str]:
    """The sources of a paper's cells, one line each: paper, copy, version, address, licence."""
    lines = []
    for source in paper.get("sources", {}).values():
        version = f", version {source['version']}" if "version" in source else ""
        address = f" {source['url']}" if source["url"] else ""
        lines.append(f"{source['paper']}: {source['text']}{version}.{address} Licence: {source['licence']}.")
    if paper["cells"]:
        stated = dict.fromkeys(cell["value"]["source"] for cell in paper["cells"])
        lines += [
            f"{paper['method']} on a public index: {text}. {paper['url']} Licence: not stated." for text in stated
        ]
    return lines


def _printed(paper: Mapping[str, Any], cell: Mapping[str, Any]) -> PrintedCell:
    return PrintedCell(
        paper["id"],
        cell["source"],
        cell["locator"],
        cell.get("setting", ""),
        cell["method"],
        cell["student"],
        cell["teacher"],
        cell["benchmark"],
        cell["metric"],
        cell["unit"],
        cell["value"],
        cell.get("n"),
        cell.get("samples"),
        cell.get("judge", ""),
        cell.get("seeds", ""),
        cell.get("spread", ""),
        paper["sources"][cell["source"]].get("version", ""),
        cell["status"],
        cell.get("note", ""),
    )


def _stated(paper: Mapping[str, Any]) -> list[PrintedCell]:
    """The cells with facts. Cells of one benchmark that differ only in their ids get the id as setting."""
    cells = []
    for cell in paper["cells"]:
        facts = {key: cell[key]["value"] for key in ("metric", "value", "n", "judge", "student", "teacher")}
        status = f"known: {cell['value']['source']}; n {cell['n']['status']}"
        cells.append(
            PrintedCell(
                paper["id"],
                "index",
                "public index",
                cell["id"] if cell["id"] != cell["task"] else "",
                paper["method"],
                _deduced(cell["student"]),
                _deduced(cell["teacher"]),
                cell["dataset"],
                facts["metric"] or "not stated",
                "percent",
                str(facts["value"]),
                facts["n"],
                None,
                facts["judge"] or "",
                "",
                "",
                "",
                status,
                "",
            )
        )
    return cells


def _deduced(fact: Mapping[str, Any]) -> str:
    if fact["value"] is None:
        return "not stated"
    return fact["value"] + (" (deduced)" if fact["status"] == "deduced" else "")
