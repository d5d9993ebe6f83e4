"""A student with an adapter, trained by the harness and by a loop written on transformers and peft alone.

    python -m results.scripts.lora [--student DIR --teacher DIR --recipe FILE] [--adapter dora] [--out FILE.md]

Both sides train on the same sequences, step by step: the hand-written one reads which they were from the harness' run,
and shares nothing else with it. It pads with labels of -100, keeps the full logits and updates with AdamW at the rates
of the schedule. Compared are the loss, the gradient's norm before clipping and, at the end, every weight of the
adapter. The script fails where a loss or norm differs by more than 1e-4 of its value.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from unittest import mock

import torch
from torch.nn.functional import kl_div

from harness import plan, students
from harness.models.files import load_tokenizer
from harness.training import loop
from harness.training.batching import TrainingSequence

TOLERANCE = 1e-4
Steps = list[list[TrainingSequence]]


def by_the_harness(chosen: argparse.Namespace, folder: Path):
    """The result of the run, the sequences of each of its steps, and its plan."""
    settings = [f"student.adapter={chosen.adapter}", f"training.steps={chosen.steps}", "training.precision=float32"]
    request = plan.RunRequest(
        ["kd"],
        [chosen.task],
        chosen.recipe,
        chosen.student,
        chosen.teacher,
        settings=[*settings, *chosen.set],
        results=folder,
        device="cpu",
    )
    prepared, steps = plan.prepare(request), []
    split = loop.micro_batches

    def noted(sequences: Sequence[TrainingSequence], *size: int | None):
        steps.append(list(sequences))
        return split(sequences, *size)

    with mock.patch.object(loop, "micro_batches", noted):
        outcome = students.train_run(prepared, prepared.trainings[0], lambda *_: None)
    return outcome, steps, prepared


def by_hand(prepared: plan.Plan, steps: Steps, rates: Sequence[float]):
    """(loss, gradient norm) of every step, and the weights of the adapter in the end."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
    from transformers import AutoModelForCausalLM

    recipe = prepared.recipe
    torch.manual_seed(prepared.trainings[0].seed)
    teacher = AutoModelForCausalLM.from_pretrained(prepared.teacher.path, dtype=torch.float32).eval()
    student = AutoModelForCausalLM.from_pretrained(prepared.student.path, dtype=torch.float32)
    config = LoraConfig(
        r=recipe.student.rank,
        lora_alpha=recipe.student.alpha,
        lora_dropout=recipe.student.dropout,
        use_dora=recipe.student.adapter == "dora",
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    model = get_peft_model(student, config).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, weight_decay=recipe.training.weight_decay)
    tokenizer, rows = load_tokenizer(prepared.student), []
    for sequences, rate in zip(steps, rates, strict=True):
        ids, labels = _padded(sequences, tokenizer.pad_token_id)
        q = model(input_ids=ids).logits[:, :-1, : len(tokenizer)]
        with torch.no_grad():
            p = teacher(input_ids=ids).logits[:, :-1, : len(tokenizer)]
        here = labels[:, 1:] != -100
        loss = kl_div(q[here].log_softmax(-1), p[here].log_softmax(-1), log_target=True, reduction="sum") / here.sum()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(trained, recipe.training.clip)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        rows.append((loss.item(), norm.item()))
    return rows, get_peft_model_state_dict(model)


def _padded(sequences: Sequence[TrainingSequence], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """[B, L] token ids, padded on the right where no real token looks, and labels that leave prompts out."""
    width = max(len(sequence.prompt) + len(sequence.response) for sequence in sequences)
    ids, labels = torch.full((len(sequences), width), pad), torch.full((len(sequences), width), -100)
    for row, sequence in enumerate(sequences):
        whole = torch.tensor(sequence.prompt + sequence.response)
        ids[row, : len(whole)] = whole
        labels[row, len(sequence.prompt) : len(whole)] = whole[len(sequence.prompt) :]
    return ids, labels


def compare(chosen: argparse.Namespace) -> tuple[str, bool]:
    """A table in Markdown, and whether the two sides agree."""
    with tempfile.TemporaryDirectory() as folder:
        outcome, steps, prepared = by_the_harness(chosen, Path(folder))
        rows, weights = by_hand(prepared, steps, [row["learning_rate"] for row in outcome.curve])
    lines = ["| step | loss, harness | by hand | gradient norm, harness | by hand |", "|---:|---:|---:|---:|---:|"]
    sound = True
    for row, (loss, norm) in zip(outcome.curve, rows, strict=True):
        lines.append(f"| {row['step']} | {row['loss']:.6f} | {loss:.6f} | {row['grad_norm']:.6f} | {norm:.6f} |")
        pairs = ((row["loss"], loss), (row["grad_norm"], norm))
        sound &= all(abs(ours - theirs) <= TOLERANCE * abs(theirs) for ours, theirs in pairs)
    own = {name.replace("vector.weight", "vector"): weight for name, weight in outcome.adapter.weights.items()}
    apart = max(float((weights[name] - ours).abs().max()) for name, ours in own.items())
    sound &= weights.keys() == own.keys()
    summary = f"Largest difference of a weight of the adapter after {len(rows)} steps: {apart:.1e}."
    return "\n".join([f"`kd` with {chosen.adapter} on {prepared.student.id}", "", *lines, "", summary]), sound


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--adapter", choices=("lora", "dora"), default="lora")
    parser.add_argument("--recipe", default="micro")
    parser.add_argument("--student")
    parser.add_argument("--teacher")
    parser.add_argument("--task", default="amc23@micro")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--set", action="append", default=[], help="more settings of the recipe")
    parser.add_argument("--out", type=Path, help="a Markdown file to write, too")
    return parser.parse_args(words)


def main() -> int:
    chosen = arguments()
    table, sound = compare(chosen)
    print(table)
    if chosen.out:
        words = "# An adapter trained here, and by hand\n\nWritten by `python -m results.scripts.lora`: "
        words += "the same sequences by the harness' loop and by a loop on transformers and peft alone.\n\n"
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(f"{words}{table}\n", "utf-8")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
