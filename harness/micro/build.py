"""Builds the micro world's teacher and student: ``python -m harness.micro.build [--out DIR] [--model NAME …]``.

The teacher learns from an endless stream of fresh problems. The student is trained briefly on the same
stream, like a small pretrained model, and its warm start on the labelled examples. One seed, one thread and
fixed batches make a build repeatable on one machine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from harness.errors import BadInput
from harness.micro import tokenizer as micro_tokenizer
from harness.micro import world
from harness.micro.muon import Muon
from harness.types import Example

ROLES = ("teacher", "student")
TOKENIZER_TEXTS = 6000
MAX_RESPONSE = 96  # tokens; the longest right response has about 70
PART = 16  # sequences a forward pass
STORED = torch.bfloat16  # the files' precision; config.json has the models computed in float32


@dataclass(frozen=True)
class BuildStage:
    """A run through ``fresh`` problems or the ``labelled`` examples, with its own warm-up and cosine decay."""

    examples: str
    steps: int
    rate: float = 1.0  # of the recipe's learning rates
    turns: tuple[str, ...] = tuple(world.FAMILIES)  # how often each family appears in the stream


@dataclass(frozen=True)
class BuildRecipe:
    """Shape and training of one model. All that changes the weights is here, in the world or in the tokenizer."""

    layers: int
    width: int
    heads: int
    mlp: int
    stages: tuple[BuildStage, ...]
    seed: int
    batch: int = 32
    matrix_rate: float = 0.01  # Muon's learning rate
    vector_rate: float = 0.003  # AdamW's, for embeddings and norms
    weight_decay: float = 0.1


RECIPES = {  # mathematics is learned first, so later stages weight the families with more errors
    "teacher": BuildRecipe(
        *(3, 128, 4, 384),
        stages=(
            BuildStage("fresh", 1700),
            BuildStage("fresh", 1000, 0.7, ("code", "instruction", "maths", "code", "instruction", "instruction")),
            BuildStage("fresh", 500, 0.5, ("code", "code", "maths", "code", "code", "instruction")),
        ),
        seed=1,
    ),
    "student": BuildRecipe(
        *(2, 64, 4, 176),
        stages=(
            BuildStage("fresh", 600, turns=("maths", "code", "instruction", "maths", "instruction", "instruction")),
            BuildStage("labelled", 60, 0.3),
        ),
        seed=3,
    ),
}


def build(recipe: BuildRecipe, out: Path, title: str = "micro model") -> list[float]:
    """Trains a model and writes it with its tokenizer to ``out``; the loss of every step, in nats a token."""
    torch.manual_seed(recipe.seed)
    tokenizer = the_tokenizer()
    model = new_model(recipe, tokenizer)
    losses: list[float] = []
    for number, stage in enumerate(recipe.stages):
        losses += train(model, tokenizer, recipe, stage, recipe.seed + 100 * number, f"{title}: {stage.examples}")
        model.to(STORED).float()  # a stage ends with the weights that the files hold
    store(model, tokenizer, out)
    return losses


def store(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path) -> None:
    """Writes a model rounded to :data:`STORED`, with its tokenizer; the configuration has it computed in full."""
    model.to(STORED).save_pretrained(out)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2) + "\n")
    tokenizer.save_pretrained(out)


def the_tokenizer() -> PreTrainedTokenizerFast:
    """The shipped tokenizer, or a new one if there is none: its training breaks ties at random, and ids must agree."""
    if (world.WEIGHTS / "teacher/tokenizer.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(world.WEIGHTS / "teacher")
    texts = islice(world.training_stream(seed=0), TOKENIZER_TEXTS)
    return micro_tokenizer.train(example.prompt.plain + example.response for example in texts)


def new_model(recipe: BuildRecipe, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=recipe.width,
        intermediate_size=recipe.mlp,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def train(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    recipe: BuildRecipe,
    stage: BuildStage,
    seed: int,
    title: str,
    examples: Iterator[Example] | None = None,
) -> list[float]:
    """One stage of ``recipe`` on the response tokens of ``examples``; the mean loss of each step.

    If no examples are given, ``seed`` draws those of the stage.
    """
    optimizers = _optimizers(model, recipe)
    warm_up = max(1, stage.steps // 20)

    def decay(step: int) -> float:
        return stage.rate * min((step + 1) / warm_up, 0.5 + 0.5 * math.cos(math.pi * step / stage.steps))

    schedulers = [torch.optim.lr_scheduler.LambdaLR(optimizer, decay) for optimizer in optimizers]
    if examples is None:
        fresh = stage.examples == "fresh"
        examples = world.training_stream(seed, stage.turns) if fresh else _again(stage.examples, seed)
    model.train()
    losses: list[float] = []
    with _progress() as progress:
        bar = progress.add_task(title, total=stage.steps, loss="")
        for _ in range(stage.steps):
            parts = _parts(tokenizer, islice(examples, recipe.batch))
            tokens = sum(int(mask.sum()) for _, mask in parts)
            total = 0.0
            for ids, mask in parts:
                hidden = model.model(input_ids=ids[:, :-1]).last_hidden_state
                logits = model.lm_head(hidden[mask[:, 1:]])
                loss = F.cross_entropy(logits, ids[:, 1:][mask[:, 1:]], reduction="sum") / tokens
                loss.backward()
                total += loss.item()
            for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad(set_to_none=True)
            losses.append(total)
            progress.update(bar, advance=1, loss=f"loss {losses[-1]:.4f}")
    return losses


def _optimizers(model: LlamaForCausalLM, recipe: BuildRecipe) -> list[torch.optim.Optimizer]:
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    vectors = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        Muon(matrices, lr=recipe.matrix_rate, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(vectors, lr=recipe.vector_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay),
    ]


def _again(split: str, seed: int) -> Iterator[Example]:
    """The examples of ``split`` again and again, in a new order each time."""
    examples, rng = world.examples(split), Random(seed)
    while True:
        yield from rng.sample(examples, len(examples))


def _parts(tokenizer: PreTrainedTokenizerFast, examples: Iterable[Example]) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """A batch in parts of similar length, each (ids, response mask) [N, longest].

    Padding is on the right, where causal attention hides it from real tokens.
    """
    sequences = []
    for example in examples:
        prompt = tokenizer(example.prompt.plain).input_ids
        response = [*tokenizer(example.response).input_ids, tokenizer.eos_token_id]
        sequences.append((prompt, response))
    sequences.sort(key=lambda pair: len(pair[0]) + len(pair[1]))
    parts = []
    for start in range(0, len(sequences), PART):
        part = sequences[start : start + PART]
        longest = max(len(prompt) + len(response) for prompt, response in part)
        ids = torch.full((len(part), longest), tokenizer.pad_token_id)
        mask = torch.zeros((len(part), longest), dtype=torch.bool)
        for i, (prompt, response) in enumerate(part):
            end = len(prompt) + len(response)
            ids[i, :end] = torch.tensor(prompt + response)
            mask[i, len(prompt) : end] = True
        parts.append((ids, mask))
    return parts


@torch.inference_mode()
def answer(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str], batch: int = 50
) -> list[str]:
    """Greedy responses to ``prompts``, in their order."""
    model.eval()
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    responses = [""] * len(prompts)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        inputs = tokenizer([prompts[i] for i in chosen], return_tensors="pt", padding=True)
        ids = model.generate(
            input_ids=inputs.input_ids,
            attention_mask=inputs.attention_mask,
            max_new_tokens=MAX_RESPONSE,
            do_sample=False,
        )
        texts = tokenizer.batch_decode(ids[:, inputs.input_ids.shape[1] :], skip_special_tokens=True)
        for i, text in zip(chosen, texts, strict=True):
            responses[i] = text
    return responses


def measure(folder: Path, examples: Sequence[Example]) -> dict[str, dict[str, int]]:
    """Per family, how many of ``examples`` the stored model solves greedily, and of how many."""
    model = LlamaForCausalLM.from_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    responses = answer(model, tokenizer, [example.prompt.plain for example in examples])
    counts = {family: {"correct": 0, "total": 0} for family in world.FAMILIES}
    for example, response in zip(examples, responses, strict=True):
        count = counts[example.meta["family"]]
        count["total"] += 1
        count["correct"] += world.solved(example, response)
    return counts


def manifest(out: Path) -> dict[str, Any]:
    """Facts about the built folders: recipe, sizes, checksums, counts of solved test problems."""
    tests = [example for task in world.TASKS if task not in world.SAME_PROBLEMS for example in world.held_out(task)]
    models = {}
    for role in ROLES:
        folder = out / role
        model = LlamaForCausalLM.from_pretrained(folder)
        models[role] = {
            "parameters": model.num_parameters(),
            "recipe": asdict(RECIPES[role]),
            "test": measure(folder, tests),
            "validation": measure(folder, world.examples("validation")),
            "files": {
                f"{role}/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted(folder.iterdir())
            },
        }
    return {"world": world.VERSION, "models": models}


def _progress() -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed}/{task.total} {task.fields[loss]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        disable=not console.is_terminal,
    )


def build_role(role: str, out: Path, steps: int | None = None) -> None:
    """Trains one model and writes it to ``out / role``; ``steps`` cuts every stage short."""
    recipe = RECIPES[role]
    if steps is not None:
        recipe = replace(recipe, stages=tuple(replace(stage, steps=steps) for stage in recipe.stages))
    build(recipe, out / role, f"micro {role}")


def command(
    arguments: Sequence[str] | None,
    module: str,
    about: str,
    shipped: Path,
    make: Callable[[str, Path, int | None], None],
    names: Sequence[str],
    kept: Sequence[str],
    facts: Callable[[Path], dict[str, Any]],
) -> int:
    """The command line of a build: makes the models ``names`` in that order, then writes ``manifest.json``.

    The manifest waits until all models ``kept`` are there; folders of others are removed then.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=about)
    parser.add_argument("--out", type=Path, default=shipped, help="folder to write to (default: shipped weights)")
    parser.add_argument("--model", choices=names, nargs="*", help="build only these, next to the existing ones")
    parser.add_argument("--steps", type=int, help="steps of every stage, for a quick trial")
    options = parser.parse_args(arguments)
    try:
        if options.steps is not None and options.steps < 1:
            raise BadInput(f"--steps {options.steps}: at least one step is needed")
        torch.set_num_threads(1)
        for name in (name for name in names if name in (options.model or names)):
            make(name, options.out, options.steps)
    except BadInput as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if all((options.out / name).is_dir() for name in kept):
        for name in set(names) - set(kept):
            shutil.rmtree(options.out / name, ignore_errors=True)
        summary = facts(options.out)
        (options.out / "manifest.json").write_text(json.dumps(summary, indent=2) + "\n")
        for name, model in summary["models"].items():
            print(name, model["parameters"], model["validation"])
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    about = __doc__.split("\n")[0]
    return command(arguments, "harness.micro.build", about, world.WEIGHTS, build_role, ROLES, ROLES, manifest)


if __name__ == "__main__":
    sys.exit(main())
