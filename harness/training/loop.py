"""THE training loop. Every method trains here and nowhere else; read it from top to bottom.

    set up       model, optimizer, rollouts, teacher, validation; resume from the checkpoint if there is one
    each step    collect sequences -> forward and backward per micro-batch -> normalise -> clip -> update -> report
    finish       the trained student in memory, its cost, its learning curve and its warnings

Gradients are sums over tokens, divided once per optimizer step by the step's total weight over all processes. The
number of micro-batches, of accumulation steps and of processes therefore changes nothing but rounding.
"""

from __future__ import annotations

import contextlib
import math
import time
import types
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from transformers import PreTrainedModel

from harness import error_location, method_contract, user_code
from harness.errors import BadInput, RunFailed
from harness.launch import processes as launch_processes
from harness.method import Method, Step, texts_of
from harness.models import adapters, bfloat16_products, devices
from harness.models.engine_choice import IN_PROCESS
from harness.models.files import load_model, load_tokenizer
from harness.models.generate import Generator
from harness.models.token_text import Segments
from harness.progress import LOADING
from harness.training import checkpoint, distributed, optimizers, verdicts
from harness.training.batching import Batch, TrainingSequence, collate, micro_batches
from harness.training.distributed import Replicated, dummy_step, full_tensor
from harness.training.engine_gap import EngineGap, summary
from harness.training.held_out import HeldOut, Validation
from harness.training.job import Progress, TrainingJob, TrainingResult
from harness.training.objective import NotFinite, Student, Sums
from harness.training.report import Cost, ValidityReport, WeightReport, peak_bytes, reset_peak
from harness.training.rollouts import Rollouts
from harness.training.signals import NoTeacher, TeacherLogits
from harness.training.student_engine import StudentEngine
from harness.training.teacher import TeacherSetup, set_up
from harness.training.whole_step import measured, shuffle
from harness.types import Source

UNPREPARED = "none of the probed steps requests; sources must be known before training"


def train(job: TrainingJob, progress: Progress) -> TrainingResult:
    """Trains the student of ``job``, from its checkpoint if there is one. Raises RunFailed with the step."""
    settings, method = job.recipe.training, job.method
    if settings.threads:
        torch.set_num_threads(settings.threads)
    accelerator = distributed.accelerator(
        cpu=job.device == "cpu",
        mixed_precision="bf16" if settings.precision == "bfloat16" else "no",
        **job.tracking.options(job.training_id),
    )
    processes = accelerator.num_processes
    if settings.batch < processes:
        raise BadInput(f"training.batch={settings.batch} leaves some of {processes} processes without work")
    optimizers.check(settings, processes=processes, sharded=launch_processes.sharded())
    device = accelerator.device
    torch.manual_seed(job.run.seed)
    reset_peak(device)

    # The student, whole on this process, replicated or sharded.
    progress(*LOADING)
    tokenizer = load_tokenizer(job.student)
    student = _student(job, accelerator, vocab=job.words or len(tokenizer))
    model = student.whole.model
    if device.type == "cpu":
        devices.keep_freed()
        if settings.precision == "bfloat16":
            bfloat16_products.widen()
    # The weights that the optimizer updates: the model's own, or float32 copies of them.
    trained = [(name, p) for name, p in student.module.named_parameters() if p.requires_grad]
    masters = optimizers.MasterWeights(trained) if settings.master_weights == "optimizer" else None
    trained = masters.trained if masters else trained
    optimizer = optimizers.make(trained, settings)
    scheduler = optimizers.schedule(optimizer, settings)
    wrapped, optimizer = student.prepare(accelerator, optimizer)
    cost, curve, warnings, start = Cost(), [], [], 0
    began = time.monotonic()

    # The source of text, and the teacher's signal for it.
    texts = texts_of(method, settings.steps)
    elsewhere = job.recipe.rollout.engine != IN_PROCESS and Source.STUDENT in texts
    samples = not elsewhere and bool(texts - {Source.DATA, Source.TEACHER} or method.needs.proposals)
    sampler = student.sampler(devices.sampling_type(job.recipe) if samples else devices.weights_type(settings))
    rollouts = Rollouts(
        job,
        Generator(sampler, tokenizer, job.recipe.evaluation.batch, job.words),
        accelerator.process_index,
        processes,
        gather=gather_object if processes > 1 else lambda mine: mine,
        gathered=student.sampling,
    )
    teaching = set_up(job, rollouts, student.module, accelerator, cost, progress)
    if elsewhere:
        leads = accelerator.is_main_process
        rollouts.engine = StudentEngine(job, student, rollouts.student, rollouts.gather, leads, progress)
    validation = Validation(method, job.data.validation, rollouts.student, settings.micro_batch, accelerator)
    held_out = HeldOut(job, teaching.signal, rollouts.student, student.module.vocab, accelerator)
    segments, moved = Segments(tokenizer, method.needs.segment, method.needs.span), WeightReport()
    warnings += rollouts.check_steps(segments, texts)

    # Resume. Every process reads the checkpoint, and all must have read the same one.
    parts = checkpoint.TrainingParts(
        student, optimizer, scheduler, masters, rollouts, method, weights=moved, moving=teaching.moving
    )
    state, damage = checkpoint.load(job.folder, job.training_id)
    checkpoint.agree(job.folder, state, rollouts.gather)
    warnings += [damage] if damage else []
    if state is not None:
        parts.load(state)
        curve, start = state["curve"], state["step"]
        began = time.monotonic() - state["cost"]["seconds"]
        # The saved cost is that of all processes together, so only one of them continues to count from it.
        cost = Cost(**state["cost"]) if accelerator.is_main_process else Cost()
    job.tracking.begin(accelerator, job.training_id, job.run.spec)
    entered, read = time.monotonic(), cost.student_tokens
    progress("first step", 0, 0, "")

    for index in range(start, settings.steps):
        # Collect this process' share of the step's text. Dropout is off while the student samples.
        step = rollouts.step(index)
        model.eval()
        with _faults_named(step, settings.checkpoint_every):
            sources = method.sources(step)
            method_contract.sources(method, sources)
            if unknown := set(sources) - texts:
                message = f"asks for {', '.join(unknown)} text, which {UNPREPARED}"
                raise method_contract.broken(method, "sources", message)
        sequences = [s for s in rollouts.collect(step, sources, cost) if s.places]
        if not sequences:
            full = f"the prompts fill training.max_tokens={settings.max_tokens}"
            raise RunFailed(f"step {index}: no sequence has a response: {full}; raise it")

        # Gradients of the summed objective, divided by the step's weight over all processes.
        model.train()
        split = micro_batches(sequences, settings.micro_batch, settings.micro_tokens)
        special = tokenizer.all_special_ids
        batches = [collate(part, rollouts.student.pad_id, segments, device, special) for part in split]
        gap = EngineGap(job.recipe.rollout.importance_cap) if rollouts.engine else None
        for batch in batches:
            batch.gap = gap
        with _faults_named(step, settings.checkpoint_every):
            sums = _backward(accelerator, student, wrapped, rollouts, method, teaching, batches, step, cost)
        if any(s.weights for s in sums):
            moved.add(rollouts.gather(torch.cat([part for s in sums for part in s.weights]).tolist()))
        report = _normalise(accelerator, trained, sums, mixed=len(texts) > 1)
        report |= gap.report(rollouts.gather) if gap else {}

        # Clip after normalising, so that ``clip`` means the same for every batch size.
        report["grad_norm"] = _clip(trained, settings.clip, step)
        report["learning_rate"] = float(scheduler.get_last_lr()[0])
        optimizer.step()
        if masters:
            masters.publish()
        student.moved()
        scheduler.step()
        if teaching.moving is not None:
            teaching.moving.update()
        optimizer.zero_grad(set_to_none=True)

        # Report, and let the method update its state from the means of the whole step.
        report |= validation.report(index + 1, student, cost)
        with _faults_named(step, settings.checkpoint_every):
            method.after_step(step, types.MappingProxyType(report))
        paused = time.monotonic()
        report |= held_out.report(index + 1, student)
        began += time.monotonic() - paused  # measured for readers; the training does not use it
        cost.steps, cost.seconds = index + 1, time.monotonic() - began
        texts_now = _texts(accelerator, sequences, step)
        if rollouts.rewards is not None:
            texts_now |= verdicts.reward_report(sequences, rollouts.batch, rollouts.gather)
        curve.append({"step": index + 1, "seconds": cost.seconds, **texts_now, **report})
        job.tracking.log(curve[-1], index + 1)
        rate = (cost.student_tokens - read) / max(time.monotonic() - entered, 1e-9)
        progress("train", index + 1, settings.steps, f"loss {report['loss']:.4f}, {rate:,.0f} tokens a second")

        # Gathering the state is a collective, so every process takes part; the main process writes.
        due = settings.checkpoint_every and (index + 1) % settings.checkpoint_every == 0
        if due and index + 1 < settings.steps:
            state = parts.state(keep=accelerator.is_main_process)
            state |= {"curve": curve, "step": index + 1, "cost": cost.over_processes(accelerator).as_dict()}
            if accelerator.is_main_process:
                checkpoint.save(job.folder, job.training_id, state)

    # Finish: facts and warnings of the whole training, then the student, whole on the main process.
    cost.seconds = time.monotonic() - began
    cost.peak_memory_bytes = peak_bytes(device)
    job.tracking.end()
    warnings += job.tracking.warnings
    if cut := rollouts.state()["cut"]:
        warnings.append(f"{cut} training responses were cut to training.max_tokens={settings.max_tokens}")
    weights, engine = moved.facts(), {}
    if rollouts.engine is not None:
        engine = rollouts.engine.facts() | summary(curve)
        rollouts.engine.close()
    if rollouts.proposals is not None:
        weights |= {"validity": ValidityReport.of(rollouts.validity())}
    warnings += moved.warnings()
    leads, adapter = accelerator.is_main_process, None
    total, finished = cost.over_processes(accelerator), student.finished(leads).model.eval()
    if adapters.wanted(job.recipe.student) and leads:
        adapter = adapters.merge(finished, job.recipe.student, job.recipe.models.student)
    return TrainingResult(finished, tokenizer, total, curve, warnings, teaching.facts, adapter, weights, engine)


def _student(job: TrainingJob, accelerator: Accelerator, vocab: int) -> Replicated:
    """The student, all of it or an adapter to be trained, replicated or sharded as the launch asks."""
    # A sharded student is read on the host, by one process of a machine at a time. Each layer moves to its device
    # when it is sharded, so neither a device nor the processes of a machine together hold the whole model.
    over = distributed.mesh(accelerator)
    place = "cpu" if over is not None else str(accelerator.device)
    with distributed.in_turn(accelerator) if over is not None else contextlib.nullcontext():
        model = load_model(job.student, devices.weights_type(job.recipe.training), place)
        if adapters.wanted(job.recipe.student):
            adapters.attach(model, job.recipe.student, job.student.id)
        if job.recipe.training.gradient_checkpointing:
            _checkpoint_layers(model, job.student.id)
        return distributed.distribute(Student(model, vocab), accelerator, over)


def _checkpoint_layers(model: PreTrainedModel, name: str) -> None:
    """Keeps only the input of each layer for the backward pass. Raises BadInput if the model does not support this."""
    if not model.supports_gradient_checkpointing:
        raise BadInput(f"training.gradient_checkpointing: the code of {name} does not support it; leave it out")
    # The reentrant variant needs an input with a gradient, which a model with frozen weights lacks.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable({"use_reentrant": False})  # renamed within transformers 5


class _faults_named(error_location.faults_as):
    """Turns errors of a method into RunFailed with FILE:LINE, the step, and the checkpoint that is kept."""

    def __init__(self, step: Step, every: int):
        last = step.index // every * every if every else 0
        outcome = f"the checkpoint of step {last} is kept" if last else "there was no checkpoint yet"
        super().__init__(RunFailed, f"step {step.index}; {outcome}")

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        if isinstance(error, BadInput):
            place = error_location.of_error(error)
            message = f"{place}: {error}" if place and place not in str(error) else str(error)
            raise RunFailed(f"{message}; {self.after}") from error
        super().__exit__(_, error, __)


def _backward(
    accelerator: Accelerator,
    student: Replicated,
    wrapped: nn.Module,
    rollouts: Rollouts,
    method: Method,
    teaching: TeacherSetup,
    batches: list[Batch],
    step: Step,
    cost: Cost,
) -> list[Sums]:
    """Adds up the gradients of the summed objective of every micro-batch; the last one exchanges them."""

    signal = teaching.signal

    def teacher_logits(i: int) -> TeacherLogits:
        if signal is None:
            return NoTeacher()
        cost.add(teacher_forward_tokens=signal.tokens(batches[i]))
        return signal.read(batches[i])

    if teaching.reference is not None:
        for batch in batches:
            cost.add(reference_forward_tokens=batch.tokens)
            batch.reference_log_prob = teaching.reference.log_prob(batch)

    if method.reduction == "source":
        _count_sources(accelerator, batches)
    if teaching.reading is not None:
        teaching.reading.pair(batches, student.module.vocab, accelerator)

    # Step features and the shuffled control need all tokens before the first objective, hence passes without
    # gradient. The teacher's hidden states of these passes are kept for the last one.
    ready: dict[int, TeacherLogits] = {}
    weights: list[Tensor | None] = [None] * len(batches)
    shuffled = getattr(method.config, "shuffle", False)
    if (method.needs.step_features and type(method).measure is not Method.measure) or shuffled:
        ready = {i: teacher_logits(i) for i in range(len(batches))}
    if method.needs.step_features:
        if type(method).measure is Method.measure:  # it reads only rewards
            measurements = [torch.zeros(len(batch.labels), 0) for batch in batches]
        else:
            with student.gathered() as module, accelerator.autocast():
                measurements = [module.measure(b, method, ready[i], step) for i, b in enumerate(batches)]
            cost.add(student_tokens=sum(batch.tokens for batch in batches))
        longest = rollouts.sampling.max_new_tokens
        features = measured(measurements, batches, method, step, rollouts.batch, rollouts.gather, longest)
        for batch, rows in zip(batches, features, strict=True):
            batch.step_features = rows
    if shuffled:
        with student.gathered() as module, accelerator.autocast():
            own = [module.token_weights(b, method, ready[i], step) for i, b in enumerate(batches)]
        weights = list(shuffle(own, batches, step, rollouts.gather))

    batch_sums, missing = [], student.missing_batches(len(batches), rollouts.gather)
    for i, batch in enumerate(batches):
        # Under DDP only the last micro-batch synchronises; the others accumulate locally (``no_sync``).
        last = i + 1 == len(batches)
        with contextlib.nullcontext() if last else accelerator.no_sync(wrapped), accelerator.autocast():
            try:
                total, sums = wrapped(batch, method, ready.pop(i, None) or teacher_logits(i), step, weights[i])
            except NotFinite as error:
                where = f"{error}, in micro-batch {i + 1} of {len(batches)}"
                # For a user's method, point to its file; with a shipped one, the weights or logits were not finite.
                own = user_code.identity(type(method)) != user_code.OURS
                place = f"{error_location.of(type(method), 'objective')}: " if own else ""
                raise BadInput(f"{place}{where}") from None
            # DDP and FSDP average gradients over processes; the loss is a sum over all tokens, so undo the mean.
            accelerator.backward(total * accelerator.num_processes)
        cost.add(student_tokens=batch.tokens)
        batch_sums.append(sums)

    # FSDP's collectives run in every pass: join those of ranks with more micro-batches.
    for _ in range(missing):
        dummy_step(wrapped, batches[0], step)
    return batch_sums


def _count_sources(accelerator: Accelerator, batches: list[Batch]) -> None:
    """Sets ``source_tokens`` of every micro-batch: response tokens of the whole step, per source of the text."""
    own = [0] * len(Source)
    for batch in batches:
        for source, size in zip(batch.sources, batch.counts, strict=True):
            own[list(Source).index(source)] += size
    # The reduction by source divides by the tokens of the whole step, so count over all processes.
    counts = accelerator.reduce(torch.tensor(own, device=accelerator.device)).tolist()
    for batch in batches:
        batch.source_tokens = dict(zip(Source, counts, strict=True))


def _normalise(accelerator: Accelerator, trained: optimizers.Named, sums: list[Sums], mixed: bool) -> dict[str, float]:
    """Divides the gradients by the step's total weight over all processes; returns the means of the step.

    ``mixed`` adds the loss of each source of the step's text alone.
    """
    # One reduction for everything: sums of the loss, of the weights, of c_t, and of each metric.
    names = sorted({name for s in sums for name in s.metrics})
    rows: list[Tensor | float] = [sum(getattr(s, what) for s in sums) for what in ("value", "weight", "scale")]
    rows += [sum(s.metrics.get(name, 0.0) for s in sums) for name in names]
    # Processes may hold text of different sources, so sum all sources on all of them.
    rows += [sum(s.by_source.get(source, (0.0, 0.0))[i] for s in sums) for source in Source for i in (0, 1)]
    own = torch.stack([torch.as_tensor(row, dtype=torch.float64, device=accelerator.device) for row in rows])
    value, weight, scale, *rest = accelerator.reduce(own).tolist()
    metrics, by_source = rest[: len(names)], rest[len(names) :]
    # A hard gate may set every weight of a step to 0; the gradients are then 0 too, and no weight changes.
    divisor = weight if weight > 0 else 1.0
    for _, parameter in trained:
        if parameter.grad is not None:
            parameter.grad /= divisor
    report = {"loss": value / divisor, **{n: m / scale for n, m in zip(names, metrics, strict=True)}}
    if mixed:
        parts = zip(Source, by_source[::2], by_source[1::2], strict=True)
        report |= {f"loss_{source}": of / weight for source, of, weight in parts if weight > 0}
    return report


def _clip(trained: optimizers.Named, largest: float, step: Step) -> float:
    """Scales the gradient down to the norm ``largest`` (0: never); returns the norm before. Raises RunFailed on NaN."""
    norm = float(full_tensor(torch.nn.utils.clip_grad_norm_([p for _, p in trained], largest or float("inf"))))
    # Name the parameter, which shows where the divergence began. Nothing was updated yet.
    if not math.isfinite(norm):
        broken = (n for n, p in trained if p.grad is not None and not full_tensor(p.grad).isfinite().all())
        bad = next(broken, "a parameter").removeprefix("model.")
        raise RunFailed(f"step {step.index}: the gradient of {bad} became NaN or infinite; the last checkpoint is kept")
    return norm


def _texts(accelerator: Accelerator, sequences: list[TrainingSequence], step: Step) -> dict[str, float]:
    """Share of the step's sequences that the student sampled (``on_policy``) and their mean age in optimizer steps."""
    ages = [step.index - s.sampled_at for s in sequences if s.sampled_at is not None and s.source is not Source.MIXED]
    counts = torch.tensor([len(sequences), len(ages), sum(ages)], device=accelerator.device)
    every, own, age = accelerator.reduce(counts).tolist()
    return {"on_policy": own / every, "buffer_age": age / max(own, 1)}
