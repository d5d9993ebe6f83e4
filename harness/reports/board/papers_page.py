"""The printed numbers of papers, separate from measured ones: each paper's cells with their facts, and their audit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from harness.papers import printed_rows
from harness.papers.audit import report
from harness.papers.audit.finding import KINDS, probability
from harness.papers.printed_rows import PrintedRow
from harness.records import printed, reported
from harness.reports.board.pages import Site

FACTS = ("metric", "n", "student", "teacher", "decoding", "judge")


def write(site: Site) -> None:
    """Writes ``papers.html``."""
    digest = hashlib.sha256(json.dumps(list(site.papers), sort_keys=True, default=str).encode()).hexdigest()
    tasks = sorted({section.task for section in site.sections})
    site.page("papers.html", "papers.html.j2", "board", [digest, tasks], lambda: _context(site))


def _context(site: Site) -> dict[str, Any]:
    here = {section.task for section in site.sections}
    beside: dict[str, list[dict[str, Any]]] = {}
    for row in printed_rows.rows_beside(site.papers, here):
        beside.setdefault(row.theirs.paper, []).append(_beside(row))
    papers = [_paper(audited, beside.get(audited.paper["id"], [])) for audited in report.audits(site.papers)]
    return {
        "title": "Papers",
        "here": "papers",
        "papers_shown": papers,
        "cells": sum(paper["count"] for paper in papers),
        "findings": sum(len(paper["notable"]) for paper in papers),
        "lead": report.LEAD,
    }


def _paper(audited: report.Audit, beside: list[dict[str, Any]]) -> dict[str, Any]:
    paper = audited.paper
    notable = [
        {"kind": KINDS[one.kind], "where": one.where, "statement": one.statement, "sums": list(one.arithmetic),
         "chance": "" if one.chance is None else probability(one.chance)}
        for one in audited.notable
    ]  # fmt: skip
    cells = [_cell(cell) for cell in paper["cells"]]
    shown = [
        {"where": cell.locator, "method": cell.method, "task": cell.benchmark, "score": cell.text, "n": cell.n or "",
         "student": cell.student, "teacher": cell.teacher, "doubt": bool(cell.doubt)}
        for cell in printed.of({**paper, "cells": []})
    ] if paper.get("printed") else []  # fmt: skip
    return {
        "id": paper["id"], "title": paper["title"], "url": paper.get("url", ""), "about": paper.get("about", ""),
        "notes": paper.get("notes") or [], "cells": cells, "printed": shown, "beside": beside, "notable": notable,
        "looked": len(audited.findings), "count": len(cells) + len(shown),
    }  # fmt: skip


def _cell(cell: Mapping[str, Any]) -> dict[str, Any]:
    """A number that a paper prints, with its facts and their status."""
    error = reported.standard_error(cell) if 0 <= cell["value"]["value"] <= 100 else None
    facts = {name: cell[name] for name in FACTS}
    return {"task": cell.get("dataset", cell["task"]), "value": cell["value"], "error": error, "facts": facts}


def _beside(row: PrintedRow) -> dict[str, Any]:
    """A printed cell whose task was measured here, under the harness' names."""
    return {"task": row.task, "method": row.method, "score": row.theirs.text, "locator": row.theirs.locator}
