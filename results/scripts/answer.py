"""Writes a paper's answer in the micro world from records as they are.

    python -m results.scripts.answer PAPER FOLDER

``harness reproduce`` looks records up under the current version of every task and runs what is missing. Published
records keep the version they were graded by, so their page is made from them: nothing runs. The step counts of equal
compute and the records of each arm are those that the reproduction stored.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from harness.papers import page, reproduce, spec
from harness.papers.reproduce import ComputeBudget
from harness.records import reported
from harness.records.store import Store


def outcome(paper: str, folder: Path) -> reproduce.Reproduction:
    """The reproduction that the records below ``folder`` are of."""
    paper_spec = spec.load(paper, folder)
    request = reproduce.ReproduceRequest(scale="micro", results=folder)
    one = reproduce.Reproduction(paper_spec, request, reported.find(paper_spec.reported, folder))
    stem = folder / "reproductions" / f"{paper_spec.name}-{request.scale}"
    one.budget = ComputeBudget(**json.loads(stem.with_suffix(".budget.json").read_text("utf-8")))
    # Which records each arm has, at equal steps and at equal compute, is what the reproduction stored.
    records = {record["run_id"]: record for record in Store(folder).all()[0]}
    for row in json.loads(stem.with_suffix(".json").read_text("utf-8"))["runs"]:
        one.records[row["view"], row["arm"], row["cell"]] = [records[run] for run in row["run_ids"]]
    return one


def written(paper: str, folder: Path) -> tuple[reproduce.Reproduction, str, dict]:
    """The reproduction with its page and its numbers."""
    one, completions = outcome(paper, folder), Store(folder).completions
    findings, standings = page.findings_of(one, completions), page.standings(one, completions)
    return one, page.answer_page(one, findings, standings, completions), page.findings_as_json(one, findings, standings)


if __name__ == "__main__":
    print(reproduce.write(*written(sys.argv[1], Path(sys.argv[2]))))
