"""Writes a paper's answer in the micro world from records as they are.

    python -m results.scripts.answer PAPER FOLDER

``harness reproduce`` looks records up under the current version of every task and runs what is missing. Published
records keep the version they were graded by, so their page is made from them: nothing runs. The step counts of equal
compute are those that the reproduction decided and stored.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from harness.leaderboard import labels
from harness.papers import page, reproduce, spec
from harness.papers.reproduce import ComputeBudget
from harness.records import reported
from harness.records.store import Store


def outcome(paper: str, folder: Path) -> reproduce.Reproduction:
    """The reproduction that the records below ``folder`` are of."""
    paper_spec = spec.load(paper, folder)
    request = reproduce.ReproduceRequest(scale="micro", results=folder)
    one = reproduce.Reproduction(paper_spec, request, reported.find(paper_spec.reported, folder))
    file = folder / "reproductions" / f"{paper_spec.name}-{request.scale}.budget.json"
    one.budget = budget = ComputeBudget(**json.loads(file.read_text("utf-8")))
    steps = {(reproduce.STEPS, name): 0 for name in one.question.references}
    steps |= {(reproduce.STEPS, name): n for name, n in budget.base.items()}
    steps |= {(reproduce.COMPUTE, name): n for name, n in (budget.base | budget.steps).items()}
    records = sorted(Store(folder).all()[0], key=lambda record: record["seed"])
    for (view, name), wanted in steps.items():
        for record in records:
            if (labels.name_of(record["method"]), record["cost"]["steps"]) == (name, wanted):
                one.records.setdefault((view, name, record["task"]), []).append(record)
    order = list(one.question.tasks)
    one.records = dict(sorted(one.records.items(), key=lambda item: order.index(item[0][2])))
    return one


def written(paper: str, folder: Path) -> tuple[reproduce.Reproduction, str, dict]:
    """The reproduction with its page and its numbers."""
    one, completions = outcome(paper, folder), Store(folder).completions
    findings, standings = page.findings(one, completions), page.standings(one, completions)
    return one, page.answer_page(one, findings, standings, completions), page.findings_as_json(one, findings, standings)


if __name__ == "__main__":
    print(reproduce.write(*written(sys.argv[1], Path(sys.argv[2]))))
