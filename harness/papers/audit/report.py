"""The audit of one paper, and of all of them, as text, JSON and Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.papers.audit import claims, comparisons, counts, means, repeats, spread
from harness.papers.audit.claims import CheckedClaim
from harness.papers.audit.finding import KINDS, AuditFinding, canonical
from harness.records import printed
from harness.records.printed import PrintedCell
from harness.records.reported import Paper

WIDTH = 80
LEAD = (
    "Counting and comparing cannot explain a value: a mean over several runs, another set, a typo or an error of our "
    "collection look the same. Printed cells are quoted as facts; nothing was measured here."
)


@dataclass(frozen=True)
class Audit:
    """The findings in one paper's cells, and the statements of others that they confirm."""

    paper: Paper
    findings: Sequence[AuditFinding]
    claims: Sequence[CheckedClaim]

    @property
    def notable(self) -> list[AuditFinding]:
        """Findings that are worth a reader's time."""
        return [finding for finding in self.findings if finding.notable]


def audit(paper: Paper, papers: Sequence[Paper] = ()) -> Audit:
    """Audits ``paper``; compares its values and orders with the other ``papers``."""
    return _audit(paper, between({other["id"]: other for other in papers} | {paper["id"]: paper}))


def audits(papers: Sequence[Paper]) -> list[Audit]:
    """Audits all of ``papers`` against each other."""
    findings = between({paper["id"]: paper for paper in papers})
    return [_audit(paper, findings) for paper in papers]


def between(papers: Mapping[str, Paper]) -> list[AuditFinding]:
    """The findings from comparing several papers."""
    if len(papers) < 2:
        return []
    everything = [cell for paper in papers.values() for cell in printed.of(paper)]
    return list(comparisons.across(everything, _proposed(list(papers.values()))))


def _audit(paper: Paper, others: Sequence[AuditFinding]) -> Audit:
    cells = printed.of(paper)
    own = _proposed([paper])
    findings: list[AuditFinding] = [
        *counts.check(cells),
        *means.check(cells),
        *repeats.check(cells),
        *comparisons.check(cells),
    ]
    for source, part in printed.grouped(cells, lambda c: (c.paper, c.source)).items():
        findings += spread.gains(part, own.get(source, frozenset()))
    findings += [*spread.seeds(cells), *spread.doubts(cells)]
    findings += [f for f in others if paper["id"] in {cell.paper for cell in f.cells}]
    order = list(KINDS)
    findings.sort(key=lambda finding: (order.index(finding.kind), not finding.notable))
    return Audit(paper, findings, claims.check(paper.get("claims", []), cells))


def _proposed(papers: Sequence[Paper]) -> dict[tuple[str, str], frozenset[str]]:
    return {
        (paper["id"], key): frozenset(canonical("method", name) for name in source.get("proposed", []))
        for paper in papers
        for key, source in paper.get("sources", {}).items()
    }


def as_json(audits: Sequence[Audit]) -> list[dict[str, Any]]:
    """One object per paper."""
    return [
        {
            "paper": one.paper["id"],
            "title": one.paper["title"],
            "sources": list(printed.sources(one.paper)),
            "cells": len(printed.of(one.paper)),
            "findings": [_finding(finding) for finding in one.findings],
            "claims": [vars(claim) | {"arithmetic": list(claim.arithmetic)} for claim in one.claims],
        }
        for one in audits
    ]


def _finding(finding: AuditFinding) -> dict[str, Any]:
    return {
        "kind": finding.kind,
        "where": finding.where,
        "statement": finding.statement,
        "arithmetic": list(finding.arithmetic),
        "notable": finding.notable,
        "chance": finding.chance,
        "cells": [_cell(cell) for cell in finding.cells],
    }


def _cell(cell: PrintedCell) -> Mapping[str, Any]:
    names = ("paper", "source", "locator", "setting", "method", "student", "teacher", "benchmark", "metric")
    return {name: getattr(cell, name) for name in names} | {"value": cell.text}


def text(audits: Sequence[Audit]) -> str:
    """For people: notable findings with their arithmetic, then how many are as expected."""
    return "\n\n".join("\n".join(_text(one)) for one in audits)


def _text(one: Audit) -> Iterator[str]:
    yield from textwrap.wrap(f"{one.paper['id']}: {one.paper['title']} (reported, not measured here)", WIDTH)
    yield _sum(one)
    for kind, title in KINDS.items():
        own = [finding for finding in one.findings if finding.kind == kind]
        if not own:
            continue
        yield f"\n{title}"
        for finding in own:
            mark = "*" if finding.notable else " "
            yield from textwrap.wrap(f"{mark} {finding.where}: {finding.statement}", WIDTH, subsequent_indent="    ")
            for line in finding.arithmetic:
                yield from textwrap.wrap(line, WIDTH, initial_indent="      ", subsequent_indent="        ")
    if one.claims:
        yield "\nStatements of others about these cells"
    for claim in one.claims:
        yield from textwrap.wrap(f"{_verdict(claim)}: {claim.text}", WIDTH, subsequent_indent="    ")
        for line in claim.arithmetic:
            yield from textwrap.wrap(line, WIDTH, initial_indent="      ", subsequent_indent="        ")
    yield "\n" + "\n".join(textwrap.wrap(f"* worth a look. {LEAD}", WIDTH))


def _sum(one: Audit) -> str:
    cells, notable = len(printed.of(one.paper)), len(one.notable)
    held = sum(claim.holds for claim in one.claims)
    words = f"{cells} cells; {notable} findings worth a look, {len(one.findings) - notable} as expected"
    return words + (f"; {held} of {len(one.claims)} statements of others hold" if one.claims else "")


def _verdict(claim: CheckedClaim) -> str:
    return "holds" if claim.holds else "does not hold"


def markdown(one: Audit) -> list[str]:
    """The blocks of a paper's page, below its tables."""
    blocks = [f"{_sum(one)}. {LEAD}"]
    for kind, title in KINDS.items():
        own = [finding for finding in one.findings if finding.kind == kind]
        if not own:
            continue
        blocks.append(f"### {title}")
        blocks.append("\n".join(line for finding in own for line in _items(finding)))
    if one.claims:
        blocks.append("### Statements of others about these cells")
        lines = []
        for claim in one.claims:
            lines.append(f"- **{_verdict(claim)}**: {_plain(claim.text)}")
            lines += [f"  - {_plain(line)}" for line in claim.arithmetic]
        blocks.append("\n".join(lines))
    return blocks


def _items(finding: AuditFinding) -> Iterator[str]:
    statement = f"{_plain(finding.where)}: {_plain(finding.statement)}"
    yield f"- **{statement}**" if finding.notable else f"- {statement}"
    yield from (f"  - {_plain(line)}" for line in finding.arithmetic)


def _plain(words: str) -> str:
    """Text escaped for Markdown."""
    return words.replace("*", r"\*").replace("_", r"\_").replace("<-", "&lt;-").replace("|", r"\|")
