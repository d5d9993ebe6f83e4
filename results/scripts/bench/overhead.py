"""``harness run`` on a micro task against the sum of its parts: what start-up, planning and records add.

The parts are what the record itself counts: the seconds of training and of evaluation (generation and grading). The
rest is the command's own: starting Python, importing torch, transformers and lm-eval, reading models, planning,
writing the record and the table. A second task in the same command pays none of it again.
"""

from __future__ import annotations

import json
import sys
import tempfile
from typing import Any

from results.scripts.bench.commands import timed
from results.scripts.bench.measure import BenchReport, ratio, spread

IMPORTS = (
    "import torch, accelerate, lm_eval.evaluator; "
    "from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM, get_scheduler"  # loaded when named
)
CASES = {"sft": ("sft", "recipe"), "gkd": ("gkd", "recipe")}
COLUMNS = [
    "run",
    "whole / parts",
    "whole / (parts + imports)",
    "whole s",
    "training s",
    "evaluation s",
    "imports alone s",
    "rest s",
]


def run(chosen: Any) -> BenchReport:
    """A row a method, trained as the micro recipe says (``--size small``: 20 steps)."""
    report, rows = BenchReport.of("overhead", __doc__, chosen.threads), []
    for name, (method, _) in CASES.items():
        if chosen.only and name not in chosen.only:
            continue
        rounds = []
        for _ in range(chosen.rounds):
            imports = timed([sys.executable, "-c", IMPORTS])["seconds"]
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-m", "harness", "run", "--method", method, "--task", "amc23", "--json"]
                command += ["--results", folder] + (["--set", "training.steps=20"] if chosen.size == "small" else [])
                outcome = timed(command)
            cost = json.loads(outcome["stdout"])["records"][0]["cost"]
            parts = {"training": cost["seconds"], "evaluation": cost["eval_seconds"], "imports": imports}
            rounds.append({"whole": outcome["seconds"], "cpu": outcome["cpu"], **parts})
        report.raw[name] = rounds
        middle = sorted(rounds, key=lambda f: f["whole"])[len(rounds) // 2]
        parts = lambda f: f["training"] + f["evaluation"]  # noqa: E731
        cells = [spread(ratio([(f["whole"], parts(f)) for f in rounds]))]
        cells.append(spread(ratio([(f["whole"], parts(f) + f["imports"]) for f in rounds])))
        cells += [f"{middle[key]:.1f}" for key in ("whole", "training", "evaluation", "imports")]
        rows.append([f"{method} on amc23@micro", *cells, f"{middle['whole'] - parts(middle) - middle['imports']:.1f}"])
        report.tables = [("", COLUMNS, rows)]
        report.write(chosen.out)
    return report
