"""THE loop. Every method trains here, and nowhere else: read it from top to bottom.

    prepare      models, texts, optimizer, what an interrupted run left
    for a step:  collect sequences -> forward/backward per micro-batch -> normalise -> clip -> move -> report
    finish       the student as an ordinary transformers folder, with what it took to make it

Gradients are sums over tokens, divided once per optimizer step by the step's total weight. Micro-batches,
accumulation and the number of processes therefore change nothing but rounding.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from transformers import get_scheduler

from harness.errors import RunFailed
from harness.method import Method, Step, texts_of
from harness.models.files import ModelFiles, load_model, load_tokenizer
from harness.models.generate import Generator
from harness.recipe import Recipe
from harness.training import checkpoint
from harness.training.batching import Batch, Sequence, lay_out, micro_batches, step_ends
from harness.training.cost import Cost, peak_bytes, reset_peak
from harness.training.objective import Student, Sums
from harness.training.proposals import Checker, Proposals
from harness.training.rollouts import Rollouts
from harness.training.signals import LiveTeacher, NoReading
from harness.training.teacher_texts import teacher_texts
from harness.training.tracking import Tracking
from harness.types import Example, Source

Progress = Callable[[str, int, int, str], None]  # stage, done, total, a few words


@dataclass
class Job:
    """All that decides a training run. ``folder`` is its own; ``texts`` is shared by all runs."""

    training_id: str
    method: Method
    recipe: Recipe
    student: ModelFiles
    teacher: ModelFiles | None
    prompts: list[Example]
    labelled: list[Example]
    seed: int
    folder: Path
    texts: Path
    device: str = "cpu"
    checker: Checker | None = None
    tracking: Tracking = field(default_factory=Tracking)
    settings: dict[str, Any] = field(default_factory=dict)  # what trackers are told of the run


@dataclass
class Trained:
    """The outcome: the trained model in memory, what it cost, how it went."""

    model: Any
    tokenizer: Any
    cost: Cost
    curve: list[dict[str, float]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def train(job: Job, progress: Progress) -> Trained:
    """Trains the student of ``job``, from its checkpoint if there is one. Raises RunFailed with the step."""
    plan, method = job.recipe.training, job.method
    if plan.threads:
        torch.set_num_threads(plan.threads)
    accelerator = Accelerator(
        cpu=job.device == "cpu",
        mixed_precision="bf16" if plan.precision == "bfloat16" else "no",
        **job.tracking.options(job.training_id),
    )
    device = accelerator.device
    torch.manual_seed(job.seed)
    reset_peak(device)

    tokenizer = load_tokenizer(job.student)
    model = load_model(job.student, "float32", str(device))
    student = Student(model, len(tokenizer))
    optimizer = torch.optim.AdamW(
        student.parameters(),
        lr=plan.learning_rate,
        weight_decay=plan.weight_decay,
        fused=device.type == "cuda",
    )
    scheduler = get_scheduler(
        plan.schedule,
        optimizer,
        num_warmup_steps=round(plan.warmup * plan.steps),
        num_training_steps=plan.steps,
    )
    wrapped, optimizer = accelerator.prepare(student, optimizer)
    cost, curve, warnings, start = Cost(), [], [], 0
    began = time.monotonic()

    needs = method.needs
    teacher = teacher_model = None
    if job.teacher is not None and needs.teacher != "none":
        teacher_model = load_model(job.teacher, plan.precision, str(device))
        if needs.teacher == "signal":
            teacher = LiveTeacher(teacher_model, student.vocab)
    rollouts = Rollouts(
        student=Generator(model, tokenizer, job.recipe.evaluation.batch),
        prompts=job.prompts,
        labelled=job.labelled,
        sampling=job.recipe.rollout,
        seed=job.seed,
        batch=plan.batch,
        max_tokens=plan.max_tokens,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
    )
    if teacher_model is not None:
        speaker = Generator(teacher_model, load_tokenizer(job.teacher), job.recipe.evaluation.batch)
        if needs.proposals:
            rollouts.proposals = Proposals(rollouts.student, speaker, job.checker)
        if Source.TEACHER in texts_of(method, plan.steps):
            with accelerator.main_process_first():
                rollouts.teacher_texts = _teacher_texts(job, speaker, rollouts.student, cost, progress)

    state, damage = checkpoint.load(job.folder, job.training_id)
    warnings += [damage] if damage else []
    if state is not None:
        student.load_state_dict(state["student"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        method.state, curve, start = state["method"], state["curve"], state["step"]
        rollouts.cut, cost = state["cut"], Cost(**state["cost"])
        began = time.monotonic() - cost.seconds
    ends = step_ends(tokenizer, needs.step_unit)
    job.tracking.begin(accelerator, job.training_id, job.settings)

    for index in range(start, plan.steps):
        step = Step(index, plan.steps, rollouts.draw(index))
        model.eval()
        sequences = [s for s in rollouts.collect(step, method.sources(step), cost) if s.response]
        model.train()
        batches = [
            lay_out(part, tokenizer.pad_token_id, ends, device) for part in micro_batches(sequences, plan.micro_batch)
        ]
        sums = _backward(accelerator, wrapped, method, teacher, batches, step, cost)
        report = _normalise(accelerator, student, sums)
        if plan.clip:
            report["grad_norm"] = float(torch.nn.utils.clip_grad_norm_(student.parameters(), plan.clip))
        report["learning_rate"] = scheduler.get_last_lr()[0]
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        method.after_step(step, report)

        cost.steps, cost.seconds = index + 1, time.monotonic() - began
        curve.append({"step": index + 1, "seconds": cost.seconds, "on_policy": _share(sequences), **report})
        job.tracking.log(curve[-1], index + 1)
        progress("train", index + 1, plan.steps, f"loss {report['loss']:.4f}")
        due = plan.checkpoint_every and (index + 1) % plan.checkpoint_every == 0 and index + 1 < plan.steps
        if due and accelerator.is_main_process:
            checkpoint.save(
                job.folder,
                job.training_id,
                {
                    "student": student.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "scheduler": scheduler.state_dict(),
                    "method": method.state,
                    "curve": curve,
                    "step": index + 1,
                    "cut": rollouts.cut,
                    "cost": cost.as_dict(),
                },
            )

    cost.seconds = time.monotonic() - began
    cost.peak_memory_bytes = peak_bytes(device)
    job.tracking.end()
    warnings += job.tracking.warnings
    if rollouts.cut:
        warnings.append(f"{rollouts.cut} training responses were cut to training.max_tokens={plan.max_tokens}")
    return Trained(model.eval(), tokenizer, cost, curve, warnings)


def _teacher_texts(
    job: Job, speaker: Generator, listener: Generator, cost: Cost, progress: Progress
) -> list[tuple[int, ...]]:
    """The teacher's answers to all prompts, in the student's token ids; charged in full, cached or not."""
    answers = teacher_texts(
        speaker,
        job.teacher.sha256,
        job.prompts,
        job.recipe.teacher_text,
        job.texts,
        lambda done, total: progress("teacher texts", done, total, ""),
    )
    made, read = sum(g.tokens for g in answers), sum(g.prompt_tokens for g in answers)
    cost.add(generated_tokens=made, teacher_forward_tokens=made + read)
    if speaker.tokenizer.get_vocab() == listener.tokenizer.get_vocab():
        return [g.ids for g in answers]
    return [listener.response_ids(g.text, ended=g.finish == "stop") for g in answers]


def _backward(
    accelerator: Accelerator,
    wrapped: Any,
    method: Method,
    teacher: LiveTeacher | None,
    batches: list[Batch],
    step: Step,
    cost: Cost,
) -> list[Sums]:
    """Gradients of the summed objective of every micro-batch; processes exchange them with the last one."""
    readings = {}

    def reading(i: int):
        if teacher is None:
            return NoReading()
        cost.add(teacher_forward_tokens=batches[i].tokens)
        return teacher.read(batches[i])

    weights: list[Tensor | None] = [None] * len(batches)
    if getattr(method.config, "shuffle", False):
        readings = {i: reading(i) for i in range(len(batches))}
        module = accelerator.unwrap_model(wrapped)
        weights = _shuffle([module.weigh(b, method, readings[i], step) for i, b in enumerate(batches)], step)
    found = []
    for i, batch in enumerate(batches):
        last = i + 1 == len(batches)
        with contextlib.nullcontext() if last else accelerator.no_sync(wrapped), accelerator.autocast():
            total, sums = wrapped(batch, method, readings.pop(i, None) or reading(i), step, weights[i])
            # Processes average their gradients; the sum over all tokens is what is wanted.
            accelerator.backward(total * accelerator.num_processes)
        cost.add(student_tokens=batch.tokens)
        found.append(sums)
    return found


def _normalise(accelerator: Accelerator, student: Student, sums: list[Sums]) -> dict[str, float]:
    """Divides the gradients by the step's total weight over all processes; returns the means of the step."""
    names = sorted({name for s in sums for name in s.metrics})
    rows = [[sum(float(s.value) for s in sums), sum(float(s.weight) for s in sums)]]
    rows[0] += [sum(float(s.metrics.get(name, 0.0)) for s in sums) for name in names]
    totals = accelerator.reduce(torch.tensor(rows[0], dtype=torch.float64, device=accelerator.device))
    value, weight, *metrics = totals.tolist()
    divisor = weight if weight > 0 else 1.0  # a hard gate may silence a whole step: then nothing moves
    for parameter in student.parameters():
        if parameter.grad is not None:
            parameter.grad /= divisor
    return {"loss": value / divisor, **{n: m / divisor for n, m in zip(names, metrics, strict=True)}}


def _shuffle(weights: list[Tensor], step: Step) -> list[Tensor]:
    """The same weights on other tokens of the step: equal mean, equal spread, no information."""
    flat = torch.cat(weights)
    order = torch.randperm(len(flat), generator=torch.Generator().manual_seed(step.index))
    return list(flat[order.to(flat.device)].split([len(w) for w in weights]))


def _share(sequences: list[Sequence]) -> float:
    if not sequences:
        raise RunFailed("no sequence of the step has a response: the prompts fill training.max_tokens")
    return sum(s.source is Source.STUDENT for s in sequences) / len(sequences)
