"""A training step of vcrd with each estimator of validity against gkd's, the same step without weights.

Same models, prompts, seed and divergence in the micro world, half of the steps on own text. CPU seconds of whole
trainings of a few steps, loading included on both sides, the teacher's texts and signals not; each setting and gkd
train in turn in one process. With ``kept`` the cache has what the teacher computed for each step. Tokens are counted as
in records, the teacher's texts included.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from harness.plan import RunRequest, prepare
from harness.students import train_run
from results.scripts.bench.measure import BenchReport, in_turns, ratio, spread, stopwatch

CASES = {
    "likelihood": {},
    "step-likelihood": {"validity": "step-likelihood"},
    "verifier": {"validity": "verifier"},
    "agreement": {"validity": "agreement"},
    "agreement, kept": {"validity": "agreement"},
    "truth": {"validity": "truth"},
    "success, 2 tries": {"validity": "success", "tries": 2},
}
COLUMNS = ["estimator", "CPU / gkd", "generated tokens / gkd", "teacher tokens / gkd", "CPU s/step", "gkd CPU s/step"]


def run(chosen: Any) -> BenchReport:
    """A row an estimator."""
    report, rows = BenchReport.of("validity", __doc__, chosen.threads), []
    torch.set_num_threads(chosen.threads)
    steps = 2 if chosen.size == "small" else 12
    for name, settings in CASES.items():
        if chosen.only and name not in chosen.only:
            continue
        with tempfile.TemporaryDirectory() as folder:

            def turn(method: str, own: dict[str, Any], kept: bool = "kept" in name, root: Path = Path(folder)) -> dict:
                # Texts and signals of the teacher are there already, as for every run but the first.
                if not kept:
                    shutil.rmtree(root / "work/validity", ignore_errors=True)
                return train(method, own, steps, root)

            sides = [lambda t=turn, s=settings: t("vcrd", s), lambda t=turn: t("gkd", {})]
            in_turns(sides, 1)  # warm-up, not counted: it writes the teacher's texts and signals
            pairs = in_turns(sides, chosen.rounds)
        report.raw[name] = pairs
        ratios = [ratio([(ours[key], base[key]) for ours, base in pairs]) for key in ("cpu", "generated", "teacher")]
        cpu = [sorted(pair[i]["cpu"] for pair in pairs)[len(pairs) // 2] / steps for i in (0, 1)]
        cells = [spread(ratios[0]), *(f"{r['median']:.2f}" for r in ratios[1:])]
        rows.append([name, *cells, *(f"{seconds:.3f}" for seconds in cpu)])
        report.tables = [("", COLUMNS, rows)]
        report.write(chosen.out)
    return report


def train(method: str, settings: dict[str, Any], steps: int, root: Path) -> dict[str, float]:
    """One training with the caches of a results folder; its CPU seconds and tokens."""
    words = [f"method.{key}={value}" for key, value in settings.items()] + [f"training.steps={steps}"]
    times: dict[str, float] = {}
    plan = prepare(RunRequest([method], ["amc23"], settings=[*words, "training.checkpoint_every=0"], results=root))
    with stopwatch(times):
        result = train_run(plan, plan.trainings[0], lambda *_: None)
    return times | {"generated": result.cost.generated_tokens, "teacher": result.cost.teacher_forward_tokens}
