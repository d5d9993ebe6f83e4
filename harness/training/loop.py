"""THE loop. Every method trains here, and nowhere else: read it from top to bottom.

    prepare      models, texts, signal, optimizer, what an interrupted run left
    for a step:  collect sequences -> forward/backward per micro-batch -> normalise -> clip -> move -> report
    finish       the student as an ordinary transformers folder, with what it took to make it

Gradients are sums over tokens, divided once per optimizer step by the step's total weight. Micro-batches,
accumulation and the number of processes therefore change nothing but rounding.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor
from transformers import get_scheduler

from harness import error_location, method_contract
from harness.errors import BadInput, RunFailed
from harness.method import Method, Step, texts_of
from harness.models.files import load_model, load_tokenizer
from harness.models.generate import Generator
from harness.training import checkpoint, distributed
from harness.training.batching import Batch, TrainingSequence, collate, micro_batches, segment_ends
from harness.training.cost import Cost, peak_bytes, reset_peak
from harness.training.distributed import Replicated, full_tensor
from harness.training.dummy_step import dummy_step
from harness.training.job import Progress, TrainingJob, TrainingResult
from harness.training.objective import NotFinite, Student, Sums
from harness.training.rollouts import Rollouts
from harness.training.shuffled_weights import shuffle
from harness.training.signals import NoTeacher, TeacherSignal
from harness.training.teacher import set_up
from harness.training.validation import Validation
from harness.types import Source

UNPREPARED = "its first, middle and last steps never ask for: what they ask for is prepared before training"


def train(job: TrainingJob, progress: Progress) -> TrainingResult:
    """Trains the student of ``job``, from its checkpoint if there is one. Raises RunFailed with the step."""
    plan, method, needs = job.recipe.training, job.method, job.method.needs
    if plan.threads:
        torch.set_num_threads(plan.threads)
    accelerator = distributed.accelerator(
        cpu=job.device == "cpu",
        mixed_precision="bf16" if plan.precision == "bfloat16" else "no",
        **job.tracking.options(job.training_id),
    )
    if plan.batch < accelerator.num_processes:
        raise BadInput(f"training.batch={plan.batch} leaves some of {accelerator.num_processes} processes without work")
    device = accelerator.device
    torch.manual_seed(job.seed)
    reset_peak(device)

    tokenizer = load_tokenizer(job.student)
    model = load_model(job.student, "float32", str(device))
    held = distributed.distribute(Student(model, len(tokenizer)), accelerator)
    model = held.whole.model
    optimizer = torch.optim.AdamW(
        decayed(held.student, plan.decay_norms or not plan.weight_decay),
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
    wrapped, optimizer = held.prepare(accelerator, optimizer)
    cost, curve, warnings, start = Cost(), [], [], 0
    began = time.monotonic()
    rollouts = Rollouts(
        student=Generator(model, tokenizer, job.recipe.evaluation.batch),
        prompts=job.prompts,
        labelled=job.labelled,
        sampling=job.recipe.rollout,
        seed=job.seed,
        batch=plan.batch,
        max_tokens=plan.max_tokens,
        capacity=needs.replay,
        full=needs.full,
        process=accelerator.process_index,
        processes=accelerator.num_processes,
        gather=gather_object if accelerator.num_processes > 1 else lambda mine: mine,
        read=held.read,
    )
    teacher, signal = set_up(job, rollouts, held.student.vocab, accelerator, cost, progress)
    validation = Validation(method, job.validation, rollouts.student, plan.micro_batch, accelerator)
    ends = segment_ends(tokenizer, needs.segment)
    texts = texts_of(method, plan.steps)

    state, damage = checkpoint.load(job.folder, job.training_id)
    checkpoint.agree(job.folder, state, rollouts.gather)
    warnings += [damage] if damage else []
    if state is not None:
        held.load(state, optimizer)
        scheduler.load_state_dict(state["scheduler"])
        rollouts.load_state(state["rollouts"])
        method.state, curve, start = state["method"], state["curve"], state["step"]
        began = time.monotonic() - state["cost"]["seconds"]
        cost = Cost(**state["cost"]) if accelerator.is_main_process else Cost()
    job.tracking.begin(accelerator, job.training_id, job.settings)

    for index in range(start, plan.steps):
        step = Step(index, plan.steps, rollouts.draw(index))
        model.eval()
        with _faults_named(step, plan.checkpoint_every):
            asked = method.sources(step)
            method_contract.sources(method, asked)
            if unknown := set(asked) - texts:
                raise method_contract.broken(
                    method, "sources", f"asks for {', '.join(unknown)} text, which {UNPREPARED}"
                )
        sequences = [s for s in rollouts.collect(step, asked, cost) if s.response]
        if not sequences:
            raise RunFailed(
                f"step {index}: no sequence has a response: the prompts fill training.max_tokens={plan.max_tokens}; "
                "raise it"
            )
        model.train()
        batches = [
            collate(part, tokenizer.pad_token_id, ends, device) for part in micro_batches(sequences, plan.micro_batch)
        ]
        with _faults_named(step, plan.checkpoint_every):
            sums = _backward(accelerator, held, wrapped, rollouts, method, teacher, batches, step, cost)
        report = _normalise(accelerator, held.student, sums)
        report["grad_norm"] = _clip(held.student, plan.clip, step)
        report["learning_rate"] = scheduler.get_last_lr()[0]
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        report |= validation.report(index + 1, held, cost)
        with _faults_named(step, plan.checkpoint_every):
            method.after_step(step, report)

        cost.steps, cost.seconds = index + 1, time.monotonic() - began
        curve.append({"step": index + 1, "seconds": cost.seconds, **_texts(accelerator, sequences, step), **report})
        job.tracking.log(curve[-1], index + 1)
        progress("train", index + 1, plan.steps, f"loss {report['loss']:.4f}")
        if plan.checkpoint_every and (index + 1) % plan.checkpoint_every == 0 and index + 1 < plan.steps:
            spent, replays = cost.over_processes(accelerator), rollouts.state()
            tensors = held.state(optimizer, keep=accelerator.is_main_process)
            if accelerator.is_main_process:
                checkpoint.save(
                    job.folder,
                    job.training_id,
                    {
                        **tensors,
                        "scheduler": scheduler.state_dict(),
                        "rollouts": replays,
                        "method": method.state,
                        "curve": curve,
                        "step": index + 1,
                        "cost": spent.as_dict(),
                    },
                )

    cost.seconds = time.monotonic() - began
    cost.peak_memory_bytes = peak_bytes(device)
    job.tracking.end()
    warnings += job.tracking.warnings
    if cut := rollouts.state()["cut"]:
        warnings.append(f"{cut} training responses were cut to training.max_tokens={plan.max_tokens}")
    return TrainingResult(
        held.finished().model.eval(), tokenizer, cost.over_processes(accelerator), curve, warnings, signal
    )


@contextlib.contextmanager
def _faults_named(step: Step, every: int) -> Iterator[None]:
    """What a method breaks or raises becomes RunFailed, with FILE:LINE, the step, and what is kept of the training."""
    last = step.index // every * every if every else 0
    kept = f"the checkpoint of step {last} is kept" if last else "there was no checkpoint yet"
    try:
        with error_location.faults_as(RunFailed, f"step {step.index}; {kept}"):
            yield
    except BadInput as error:
        place = error_location.of_error(error)
        said = f"{place}: {error}" if place and place not in str(error) else str(error)
        raise RunFailed(f"{said}; step {step.index}; {kept}") from error


def decayed(student: torch.nn.Module, norms: bool) -> list[dict[str, Any]]:
    """The parameters for the optimizer; unless ``norms``, those of one dimension (norms, biases) are not decayed."""
    every = list(student.parameters())
    if norms:
        return [{"params": every}]
    matrices = [p for p in every if p.ndim > 1]
    return [{"params": matrices}, {"params": [p for p in every if p.ndim <= 1], "weight_decay": 0.0}]


def _backward(
    accelerator: Accelerator,
    held: Replicated,
    wrapped: Any,
    rollouts: Rollouts,
    method: Method,
    teacher: TeacherSignal | None,
    batches: list[Batch],
    step: Step,
    cost: Cost,
) -> list[Sums]:
    """Gradients of the summed objective of every micro-batch; processes exchange them with the last one."""

    def reading(i: int):
        if teacher is None:
            return NoTeacher()
        cost.add(teacher_forward_tokens=teacher.tokens(batches[i]))
        return teacher.read(batches[i])

    if method.reduction == "source":
        _count_sources(accelerator, batches)
    readings, weights = {}, [None] * len(batches)
    if getattr(method.config, "shuffle", False):
        readings = {i: reading(i) for i in range(len(batches))}
        with held.read() as module, accelerator.autocast():
            own = [module.weigh(b, method, readings[i], step) for i, b in enumerate(batches)]
        weights = shuffle(own, batches, step, rollouts.gather)
    found, spare = [], held.spare(len(batches), rollouts.gather)
    for i, batch in enumerate(batches):
        last = i + 1 == len(batches)
        with contextlib.nullcontext() if last else accelerator.no_sync(wrapped), accelerator.autocast():
            try:
                total, sums = wrapped(batch, method, readings.pop(i, None) or reading(i), step, weights[i])
            except NotFinite as error:
                raise RunFailed(
                    f"step {step.index}, micro-batch {i + 1} of {len(batches)}: {error}; the last checkpoint is kept"
                ) from None
            # Processes average their gradients; the sum over all tokens is what is wanted.
            accelerator.backward(total * accelerator.num_processes)
        cost.add(student_tokens=batch.tokens)
        found.append(sums)
    for _ in range(spare):
        dummy_step(wrapped, batches[0], step)
    return found


def _count_sources(accelerator: Accelerator, batches: list[Batch]) -> None:
    """Tells every micro-batch how many response tokens the whole step has of each source."""
    own = [0] * len(Source)
    for batch in batches:
        for source, size in zip(batch.sources, batch.row.bincount().tolist(), strict=True):
            own[list(Source).index(source)] += size
    counts = accelerator.reduce(torch.tensor(own, device=accelerator.device)).tolist()
    for batch in batches:
        batch.source_tokens = dict(zip(Source, counts, strict=True))


def _normalise(accelerator: Accelerator, student: Student, sums: list[Sums]) -> dict[str, float]:
    """Divides the gradients by the step's total weight over all processes; returns the means of the step."""
    names = sorted({name for s in sums for name in s.metrics})
    rows: list[Tensor | float] = [sum(getattr(s, what) for s in sums) for what in ("value", "weight", "scale")]
    rows += [sum(s.metrics.get(name, 0.0) for s in sums) for name in names]
    own = torch.stack([torch.as_tensor(row, dtype=torch.float64, device=accelerator.device) for row in rows])
    value, weight, scale, *metrics = accelerator.reduce(own).tolist()
    divisor = weight if weight > 0 else 1.0  # a hard gate may silence a whole step: then nothing moves
    for parameter in student.parameters():
        if parameter.grad is not None:
            parameter.grad /= divisor
    return {"loss": value / divisor, **{n: m / scale for n, m in zip(names, metrics, strict=True)}}


def _clip(student: Student, largest: float, step: Step) -> float:
    """The norm of the gradient, which is scaled down to ``largest`` (0: never). Raises RunFailed if it is no number."""
    norm = float(full_tensor(torch.nn.utils.clip_grad_norm_(student.parameters(), largest or float("inf"))))
    if norm - norm != 0:
        named = student.model.named_parameters()
        bad = next(
            (n for n, p in named if p.grad is not None and not full_tensor(p.grad).isfinite().all()), "a parameter"
        )
        raise RunFailed(f"step {step.index}: the gradient of {bad} became NaN or infinite; the last checkpoint is kept")
    return norm


def _texts(accelerator: Accelerator, sequences: list[TrainingSequence], step: Step) -> dict[str, float]:
    """Whose texts all processes trained on: the share sampled from the student now or before, and how long before."""
    ages = [step.index - s.made for s in sequences if s.source in (Source.STUDENT, Source.REPLAY)]
    counts = torch.tensor([len(sequences), len(ages), sum(ages)], device=accelerator.device)
    every, own, age = accelerator.reduce(counts).tolist()
    return {"on_policy": own / every, "buffer_age": age / max(own, 1)}
