"""Builds the models of the arenas: ``python -m harness.micro.build_arenas [--out DIR] [--model NAME …] [--steps N]``.

    early      the teacher's training, stopped early: it errs on half of the problems
    teacher    its end: right on nearly all problems, mostly working the first group first
    mistaken   the teacher, trained on with writers that slip on the slice
    student    a smaller model, trained briefly by writers that work the last group first
    ahead      the student, trained on with problems of the slice

One seed, one thread and fixed batches make a build repeatable on one machine. ``manifest.json`` says what each model
solves: the floor and the ceiling of each arena.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from harness.micro import arenas, build, derivations
from harness.micro.build import BuildRecipe, BuildStage
from harness.micro.derivations import Habit

FIRST, LAST = Habit(own=0.8), Habit(own=0.8, last_first=True)
TEACHER = BuildRecipe(2, 80, 4, 208, (), seed=11)
STUDENT = BuildRecipe(2, 48, 4, 128, (), seed=13)


@dataclass(frozen=True)
class ArenaStage:
    """A stage of training: the model it starts from (``begins``, None for new weights) and its data."""

    recipe: BuildRecipe
    seed: int  # of weights and problems
    begins: str | None
    steps: int
    rate: float
    habit: Habit
    sliced: float = 0.0  # share of the problems that are drawn from the slice


STAGES = {
    "early": ArenaStage(TEACHER, 11, None, 450, 1.0, FIRST),
    "middle": ArenaStage(TEACHER, 11, None, 700, 1.0, FIRST),  # like early, later; not shipped
    "teacher": ArenaStage(TEACHER, 111, "middle", 1300, 1.0, FIRST),
    "mistaken": ArenaStage(TEACHER, 211, "teacher", 300, 0.4, Habit(own=0.8, slips=True), 0.5),
    "student": ArenaStage(STUDENT, 313, None, 740, 1.0, LAST),
    "ahead": ArenaStage(STUDENT, 413, "student", 40, 0.5, LAST, 1.0),
}


def build_model(name: str, out: Path, steps: int | None = None) -> None:
    """Trains one model and writes it with its tokenizer to ``out / name``; ``steps`` cuts the stage short."""
    stage, tokenizer = STAGES[name], build.the_tokenizer()
    torch.manual_seed(stage.seed)
    if stage.begins is None:
        model = build.new_model(stage.recipe, tokenizer)
    else:
        model = LlamaForCausalLM.from_pretrained(out / stage.begins)
    plan = BuildStage("fresh", steps or stage.steps, stage.rate)
    texts = arenas.stream(stage.seed, stage.habit, stage.sliced)
    build.train(model, tokenizer, stage.recipe, plan, stage.seed, f"arena {name}", texts)
    build.store(model, tokenizer, out / name)


def measure(folder: Path, task: str) -> dict[str, int]:
    """How many problems of ``task`` the stored model solves greedily, in the slice and outside it."""
    model = LlamaForCausalLM.from_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    examples = arenas.examples(task)
    counts = {"correct": 0, "total": 0, "slice_correct": 0, "slice_total": 0}
    for example, text in zip(examples, build.answer(model, tokenizer, [e.prompt.plain for e in examples]), strict=True):
        right, part = derivations.solved(example.meta, text), example.meta["slice"]
        counts["correct"] += right
        counts["total"] += 1
        counts["slice_correct"] += right and part
        counts["slice_total"] += part
    return counts


def manifest(out: Path) -> dict[str, Any]:
    """Facts about the built folders: stages, sizes, checksums, solved problems of test and validation."""
    models = {}
    for name in arenas.MODELS:
        folder = out / name
        models[name] = {
            "parameters": LlamaForCausalLM.from_pretrained(folder).num_parameters(),
            "stage": asdict(STAGES[name]),
            "test": measure(folder, "amc23"),
            "validation": measure(folder, "math500"),
            "files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())},
        }
    return {"arenas": {name: asdict(arena) for name, arena in arenas.ARENAS.items()}, "models": models}


def main(arguments: Sequence[str] | None = None) -> int:
    about = __doc__.split("\n")[0]
    names = (arenas.WEIGHTS, build_model, tuple(STAGES), arenas.MODELS, manifest)
    return build.command(arguments, "harness.micro.build_arenas", about, *names)


if __name__ == "__main__":
    sys.exit(main())
