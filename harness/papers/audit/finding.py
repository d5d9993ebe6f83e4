"""One finding of the audit, and the audit's knowledge besides the cells."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any

from harness.records.printed import PrintedCell

KINDS = {
    "count": "Counts",
    "mean": "Means",
    "repeat": "Repeated cells",
    "heads": "Column heads",
    "differ": "Values that differ between tables, versions or re-runs",
    "order": "Orders that differ between tables or re-runs",
    "gain": "Differences and their standard errors",
    "seeds": "Seeds",
    "doubt": "Cells that their collector marked",
}
RARE = 0.01  # a chance below this makes a finding notable
_MEAN = re.compile(r"\b(avg|average|mean)\b", re.I)


@dataclass(frozen=True)
class AuditFinding:
    """``statement`` in neutral words, ``arithmetic`` its calculation, ``chance`` the probability by chance.

    ``notable``: worth a look; the others list what was checked and is as expected.
    """

    kind: str
    where: str
    statement: str
    arithmetic: Sequence[str]
    notable: bool
    chance: float | None = None
    cells: Sequence[PrintedCell] = field(default=(), repr=False)


@cache
def facts() -> dict[str, Any]:
    """Sizes of public sets, synonyms, levels of untouched models."""
    return tomllib.loads((resources.files("harness.papers.audit") / "facts.toml").read_text("utf-8"))


def is_mean(cell: PrintedCell) -> bool:
    """Whether the cell is a mean over benchmarks or pairs, by its name."""
    return bool(_MEAN.search(cell.benchmark) or _MEAN.search(cell.student))


@cache
def bare(name: str) -> str:
    """A name in lower case without bracketed parts, for lookup."""
    return " ".join(re.sub(r"\([^)]*\)", " ", name).casefold().split()) or name.casefold()


@cache
def canonical(kind: str, name: str) -> str:
    """The one name of a ``method``, ``model`` or ``benchmark`` that several spellings share."""
    # A size in brackets is part of the name; a remark is not.
    spellings = {bare(name), " ".join(re.sub(r"[()]", " ", name).casefold().split())}
    for one, many in facts()["names"][kind].items():
        if spellings & {bare(other) for other in many}:
            return one
    return bare(name)


def is_reference(method: str) -> bool:
    """Whether a row shows a model without distillation: the teacher, the untouched student."""
    return canonical("method", method) in facts()["rows"]["references"]


def size(cell: PrintedCell) -> Mapping[str, Any] | None:
    """The public set's sizes for a cell's benchmark; None if unknown."""
    for name, sizes in facts()["sizes"].items():
        if bare(name) == bare(cell.benchmark):
            return sizes
    return None


def problems(cell: PrintedCell) -> int | None:
    """n of a cell as collected, else the only size of its public set; None if unknown."""
    known = size(cell)
    return cell.n or (known["n"][0] if known and len(known["n"]) == 1 else None)


def probability(value: float) -> str:
    """A probability as short text for a table: 0.13, 4e-07."""
    return f"{value:.2g}" if value >= 0.0095 else f"{value:.0e}".replace("e-0", "e-")
