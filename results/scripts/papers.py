"""Pages of papers: ``python -m results.scripts.papers`` writes ``results/papers/*.md``.

One page a paper: what it is, its cells as printed, what the audit finds in them, our answer to its question, and what
was not run; ``README.md`` lists them. Nothing is run here: answers are those that ``harness reproduce`` wrote below
``results/papers/reproductions`` (and, beside the records that they are made from, below ``results/micro`` and
``results/small``).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness import durable
from harness.papers import spec, tables
from harness.papers.audit import report
from harness.papers.audit.report import Audit
from harness.papers.page import WORLDS
from harness.records import printed, reported

RESULTS = Path(__file__).parents[1]
OUT = RESULTS / "papers"
ANSWERS = tuple(RESULTS / folder / "reproductions" for folder in ("papers", "micro", "small"))
SCALES = (*spec.SCALES, "paper")
TITLE = """# Published tables: cells, audit, our answers

Printed cells are quoted as facts with their source; they were not measured here and are never ranked with measured
ones. `python -m results.scripts.papers` makes these pages from `results/reported` and from the answers that
`harness reproduce NAME --scale micro` and `--scale small` wrote. `harness check paper NAME` prints the audit of one.

A finding is worth a look where counting, adding or comparing gives something else than the table, or where a
difference lies within its standard error. That says nothing about the reason: another set, a mean of several runs, a
slip, or a slip of this collection look alike.
"""


def main() -> None:
    for path, content in pages().items():
        durable.write(path, content.encode())
        print(path.relative_to(RESULTS.parent))


def pages() -> dict[Path, str]:
    """Every page by its path."""
    papers = reported.papers(RESULTS)
    audits = [report.audit(paper, papers) for paper in papers]
    by_id = {audit.paper["id"]: audit for audit in audits}
    contents = {OUT / "README.md": index(audits)} | {OUT / f"{name}.md": page(audit) for name, audit in by_id.items()}
    # Papers whose cells stand in another paper's tables.
    for name in sorted(set(spec.names()) - by_id.keys()):
        contents[OUT / f"{name}.md"] = question_page(name, by_id[spec.load(name).reported].paper)
    return contents


def question_page(name: str, paper: reported.Paper) -> str:
    """The page of a paper of which only another paper's tables have cells."""
    answers = _answers(name)
    blocks = [f"# {name}", *_claim(name), f"Its cells stand in the tables of [{paper['title']}]({paper['id']}.md)."]
    blocks += ["## Our answer", *_answer(name, answers), "## What was not run", *_not_run(name, answers)]
    return "\n\n".join(blocks).rstrip() + "\n"


def page(audit: Audit) -> str:
    """The page of one paper."""
    paper = audit.paper
    answers = _answers(paper["id"])
    shown = tables.render(paper, "md").partition("\n")[2].strip()
    blocks = [f"# {paper['title']}", *_claim(paper["id"]), "## Our answer", *_answer(paper["id"], answers)]
    blocks += ["## What was not run", *_not_run(paper["id"], answers)]
    blocks += ["## Audit", *report.markdown(audit), "## Cells as printed", shown.replace("\n### ", "\n#### ")]
    return "\n\n".join(blocks).rstrip() + "\n"


def index(audits: Sequence[Audit]) -> str:
    """All papers in a table, then every statement of others that does not hold."""
    rows = [
        "| paper | cells | worth a look | as expected | statements that hold | our answer |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for one in audits:
        held = f"{sum(c.holds for c in one.claims)} of {len(one.claims)}" if one.claims else ""
        scales = ", ".join(scale for scale, _ in _answers(one.paper["id"])) or "not asked"
        cells, notable = len(printed.of(one.paper)), len(one.notable)
        name = one.paper["id"]
        rows.append(
            f"| [{name}]({name}.md) | {cells} | {notable} | {len(one.findings) - notable} | {held} | {scales} |"
        )
    questions_only = sorted(set(spec.names()) - {one.paper["id"] for one in audits})
    for name in questions_only:
        scales = ", ".join(scale for scale, _ in _answers(name)) or "not asked"
        rows.append(f"| [{name}]({name}.md) | in {spec.load(name).reported} | | | | {scales} |")
    refuted = [f"- [{a.paper['id']}]({a.paper['id']}.md): {c.text}. {'; '.join(c.arithmetic)}"
               for a in audits for c in a.claims if not c.holds]  # fmt: skip
    table = "What released code does otherwise than its paper: [paper against release](PAPER_AND_RELEASE.md)."
    blocks = [TITLE.strip(), "\n".join(rows), table, "## Statements that do not hold", "\n".join(refuted) or "None."]
    return "\n\n".join(blocks) + "\n"


def _claim(name: str) -> list[str]:
    return [f"{spec.load(name).about}"] if name in spec.names() else []


def _answers(name: str) -> list[tuple[str, dict[str, Any]]]:
    """What ``harness reproduce`` wrote for a paper, by scale."""
    answers = []
    for scale in SCALES:
        for folder in ANSWERS:
            path = folder / f"{name}-{scale}.json"
            if path.is_file():
                answers.append((f"[{scale}]({_link(path.with_suffix('.md'))})", json.loads(path.read_text("utf-8"))))
                break
    return answers


def _link(path: Path) -> str:
    own = path.is_relative_to(OUT)
    return str(path.relative_to(OUT)) if own else f"../{path.relative_to(RESULTS)}"


def _answer(name: str, answers: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    if not answers:
        hint = f"`harness reproduce {name} --dry-run` says what it takes." if name in spec.names() else ""
        return [f"The paper's question was not asked here. {hint}".strip()]
    blocks = []
    for link, answer in answers:
        about = WORLDS.get(answer["scale"])
        blocks.append(f"In the {link} world. {about}" if about else f"At the {link}'s scale.")
        blocks.append("\n".join(f"- {line}" for line in answer["answer"]))
    return blocks


def _not_run(name: str, answers: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
    lines = ["- The paper's own rows: its models, data and hardware were not available."]
    for link, answer in answers:
        lines += [f"- The view at equal compute ({link})."] if answer["budget"] is None else []
        lines += [f"- {m['arm']} on {m['cell']} ({link}): {m['reason']}" for m in answer["missing"]]
    left = spec.load(name).left_out if name in spec.names() else {}
    return ["\n".join([*lines, *(f"- {what}: {why}" for what, why in left.items())])]


if __name__ == "__main__":
    main()
