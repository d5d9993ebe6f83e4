"""A training step of generalised JSD: the harness against TRL's GKDTrainer and DistillationTrainer.

Same student, teacher, batch, lengths and arithmetic (fp32, beta 0.5, temperature 1, AdamW, clipping at 1); the loss on
the same fixed batch is compared first. ``lambda`` is the share of steps on the student's own text. Timed is the step
alone (rollout, both forward passes, backward, optimizer), none of either side's logging. DistillationTrainer has no
off-policy steps. In the last row of a scale our side reads the teacher's hidden states from memory, as the signal
cache gives them after the first epoch.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any

from results.scripts.bench import peers
from results.scripts.bench.measure import BenchReport, Side, in_turns, ratio, spread, stopwatch

SCALES = {
    "micro": {"rows": 32, "prompt": (20, 40), "response": (12, 45), "new": 72, "models": "micro"},
    "30 M parameters": {"rows": 8, "prompt": (64, 256), "response": (128, 256), "new": 256, "models": "30m"},
}
LAMBDAS = (0.0, 0.5, 1.0)
COLUMNS = [
    "scale",
    "lambda",
    "against",
    "speed-up (wall)",
    "speed-up (CPU)",
    "ours s/step",
    "theirs s/step",
    "new tokens ours / theirs",
]


def run(chosen: Any) -> BenchReport:
    """Every scale, lambda and trainer; all sides of a scale are loaded once and work in turn."""
    report = BenchReport.of("train", __doc__, chosen.threads)
    python, rows, equal = peers.python(), [], []
    for scale, sizes in SCALES.items():
        if chosen.only and scale.split()[0] not in chosen.only:
            continue
        spec = batch(scale, sizes) | {"new": 12} if chosen.size == "small" else batch(scale, sizes)
        with (
            Side(__name__, spec | {"who": "ours"}, sys.executable, chosen.threads) as ours,
            Side(__name__, spec | {"who": "gkd"}, python, chosen.threads) as gkd,
            Side(__name__, spec | {"who": "distillation"}, python, chosen.threads) as distillation,
        ):
            first = [side.turn(kind="loss")["loss"] for side in (ours, gkd)]
            equal.append([scale, f"{first[0]:.6f}", f"{first[1]:.6f}", f"{abs(first[0] - first[1]) / first[1]:.1e}"])
            for name, theirs, lambdas in (("GKDTrainer", gkd, LAMBDAS), ("DistillationTrainer", distillation, (1.0,))):
                for share in lambdas:
                    kinds = {0.0: ["fixed"], 0.5: ["fixed", "own"], 1.0: ["own"]}[share]
                    pairs = _pairs(ours, theirs, kinds, chosen.rounds)
                    report.raw[f"{scale}, {name}, lambda {share}"] = pairs
                    rows.append([scale, f"{share:g}", name, *_cells(pairs, len(kinds))])
            pairs = _pairs(ours, gkd, ["fixed"], chosen.rounds, cached=True)
            report.raw[f"{scale}, cached teacher"] = pairs
            rows.append([scale, "0, teacher cached", "GKDTrainer", *_cells(pairs, 1)])
        report.tables = [
            ("", COLUMNS, rows),
            ("Loss of the same batch", ["scale", "ours", "TRL GKDTrainer", "apart"], equal),
        ]
        report.write(chosen.out)
    return report


def _pairs(ours: Side, theirs: Side, kinds: list[str], rounds: int, cached: bool = False) -> list:
    def steps(side: Side, mine: bool) -> Callable[[], dict[str, Any]]:
        def turn() -> dict[str, Any]:
            reports = [side.turn(kind="cached" if cached and mine else kind) for kind in kinds]
            return {key: sum(s[key] for s in reports) for key in ("seconds", "cpu", "tokens")}

        return turn

    pair = [steps(ours, True), steps(theirs, False)]
    in_turns(pair, 1)  # warm-up, not counted
    return in_turns(pair, rounds)


def _cells(pairs: list, steps: int) -> list[str]:
    cells = [spread(ratio([(theirs[key], ours[key]) for ours, theirs in pairs])) for key in ("seconds", "cpu")]
    middle = sorted(pairs, key=lambda pair: pair[0]["seconds"])[len(pairs) // 2]
    cells += [f"{side['seconds'] / steps:.3f}" for side in middle]
    return [*cells, f"{sum(p[0]['tokens'] for p in pairs)} / {sum(p[1]['tokens'] for p in pairs)}"]


def batch(scale: str, sizes: dict[str, Any]) -> dict[str, Any]:
    """The batch as token ids. Micro: real prompts and lengths like the teacher's; else random ids."""
    dice = random.Random(0)
    vocab = 600 if sizes["models"] == "micro" else 32_000
    prompts = [[dice.randrange(5, vocab) for _ in range(dice.randint(*sizes["prompt"]))] for _ in range(sizes["rows"])]
    if sizes["models"] == "micro":
        from harness.models.files import load_tokenizer, locate
        from harness.recipe import load
        from harness.training_data import examples

        recipe, tokenizer = load("micro"), load_tokenizer(locate("micro:student"))
        loaded = examples.load(recipe.data.prompts, recipe.data, labelled=False)[: sizes["rows"]]
        prompts = [tokenizer(example.prompt.plain)["input_ids"] for example in loaded]
    responses = [[dice.randrange(5, vocab) for _ in range(dice.randint(*sizes["response"]))] for _ in prompts]
    return {"models": sizes["models"], "new": sizes["new"], "prompts": prompts, "responses": responses}


def side(spec: dict[str, Any]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """One trainer; a turn is one step on the fixed batch (``fixed``, ``cached``) or on own text (``own``)."""
    import torch

    torch.set_num_threads(spec["threads"])
    if spec["who"] == "ours":
        from results.scripts.bench.train_ours import prepare
    else:
        from results.scripts.bench.train_trl import prepare
    step = prepare(spec)

    def turn(request: dict[str, Any]) -> dict[str, Any]:
        report: dict[str, Any] = {}
        with stopwatch(report):
            loss, tokens = step(request["kind"])
        return report | {"loss": loss, "tokens": tokens}

    return turn
