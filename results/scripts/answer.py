"""Writes a paper's answer in the micro or small world from records as they are.

    python -m results.scripts.answer PAPER FOLDER [SCALE]      # micro (default) or small

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


def outcome(paper: str, folder: Path, scale: str = "micro") -> reproduce.Reproduction:
    """The reproduction that the records below ``folder`` are of."""
    paper_spec = spec.load(paper, folder)
    request = reproduce.ReproduceRequest(scale=scale, results=folder)
    reproduction = reproduce.Reproduction(paper_spec, request, reported.find(paper_spec.reported, folder))
    reproduction.budget = ComputeBudget(**json.loads(reproduction.file(".budget.json").read_text("utf-8")))
    # Which records each arm has, at equal steps and at equal compute, is what the reproduction stored.
    records = {record["run_id"]: record for record in Store(folder).all()[0]}
    for row in json.loads(reproduction.file(".json").read_text("utf-8"))["runs"]:
        reproduction.records[row["view"], row["arm"], row["cell"]] = [records[run] for run in row["run_ids"]]
    return reproduction


def written(paper: str, folder: Path, scale: str = "micro") -> tuple[reproduce.Reproduction, str, dict]:
    """The reproduction with its page and its numbers."""
    reproduction, completions = outcome(paper, folder, scale), Store(folder).completions
    findings, standings = page.findings_of(reproduction, completions), page.standings(reproduction, completions)
    text = page.answer_page(reproduction, findings, standings, completions)
    return reproduction, text, page.findings_as_json(reproduction, findings, standings)


if __name__ == "__main__":
    print(reproduce.write(*written(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])))
