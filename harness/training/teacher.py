"""Sets up the teacher of a training run: its texts, joint sampling, proposals, and its signal, live or cached."""

from __future__ import annotations

import functools
from collections.abc import Callable
from collections.abc import Sequence as Seq
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel

from harness import error_location
from harness.durable import CacheFile
from harness.errors import BadInput, RunFailed
from harness.launch import processes
from harness.method import Asking, Pairing, texts_of
from harness.models import engine_choice, engines, loading
from harness.models.files import load_model, load_tokenizer, template_hash
from harness.models.generate import Generator
from harness.models.joint_sampling import JointGenerator
from harness.models.remote_engine import RemoteEngine
from harness.models.token_text import Segments
from harness.training.batching import TrainingSequence, collate
from harness.training.engine_checks import spare
from harness.training.job import Progress, TrainingJob, asks_teacher, proposing_of, teaches_itself
from harness.training.mixed_signal import MixedSignal
from harness.training.objective import Student
from harness.training.proposals import Proposals
from harness.training.report import Cost
from harness.training.rollouts import LOOKED_AT, Rollouts
from harness.training.self_teacher import MovingTeacher, SelfTeacher
from harness.training.served_teacher import ServedTeacher
from harness.training.several_teachers import Teaching, weights_of, writer_of
from harness.training.signal_contract import CheckedSignal, SignalInputs, TeacherSignal, is_own, signal_called
from harness.training.signals import SHARD_SEQUENCES, LiveTeacher, SignalCache, fields_of
from harness.training.teacher_reading import PairedSignal, TeacherReading
from harness.training.teacher_texts import teacher_texts
from harness.training.validity import (
    AgreementValidity,
    CheckerValidity,
    LikelihoodValidity,
    Remembered,
    SuccessValidity,
    TruthValidity,
)
from harness.training.verdicts import Rewards
from harness.training_data.left_out import context_of
from harness.types import Source

MANY = 10**9  # ids, if student and teacher share none
FIXED = (Source.TEACHER, Source.DATA)  # text that does not change during training, so its teacher signal can be cached


@dataclass
class TeacherSetup:
    """The teacher of a run. ``facts`` describe the signal.

    ``moving`` is a teacher that follows the student; ``reference`` the student before training; ``reading`` how the
    teacher reads the student's texts in its own tokens.
    """

    signal: TeacherSignal | LiveTeacher | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    moving: MovingTeacher | None = None
    reference: LiveTeacher | None = None
    reading: TeacherReading | None = None


def set_up(
    job: TrainingJob, rollouts: Rollouts, student: Student, accelerator: Accelerator, cost: Cost, progress: Progress
) -> TeacherSetup:
    """Sets up ``rollouts`` with the teacher of ``student``; returns its signal and facts.

    Texts and cached signals are charged in full, whether this run made or found them, and only once: to the main
    process.
    """
    needs, plan, device = job.method.needs, job.recipe.training, str(accelerator.device)
    setup, vocab = TeacherSetup(), student.vocab
    # What needs no teacher: rewards of the data's grader, and the student before training.
    if needs.rewards:
        assert job.data.grader is not None, "the plan refuses rewards without a grader"
        room = room_of_teacher(job) if needs.hindsight is not None else None
        rollouts.rewards = Rewards(job.data.grader, rollouts.student, needs.hindsight, room)
    if needs.reference:
        setup.reference = LiveTeacher(load_model(job.student, plan.precision, device), vocab)
    # A student that teaches itself needs no teacher of the recipe, and its signal is read live, without caches.
    if needs.asking is not None and teaches_itself(job.method):
        setup.signal, setup.moving = _self_teacher(job, needs.asking, student.model, vocab, device)
        setup.facts = {"kind": "live"}
        return setup
    if job.teacher is None or not asks_teacher(job.method):
        return setup
    # A single teacher is a mixture of one, so that one path serves both.
    members = job.teachers or (Teaching(job.recipe.teacher.name, job.teacher, job.recipe.teacher, 1.0),)
    writers = [_opened(job, one, vocab, rollouts.gather, accelerator, progress) for one in members]
    if job.words is not None:  # one vocabulary: a text ends at the endings of all models, whichever writes it
        ends = set[int]().union(rollouts.student.end_ids, *(writer.end_ids for writer in writers))
        for generator in (rollouts.student, *writers):
            generator.end_ids = ends
    first = writers[0]
    # Text that both models write together, while the student trains.
    if needs.proposals:
        assert isinstance(first, Generator), "the plan refuses a served teacher here"
        rollouts.proposals = _proposals(job, rollouts.student, first)
    if needs.joint is not None:
        assert isinstance(first, Generator), "the plan refuses a served teacher here"
        rollouts.joint = JointGenerator(rollouts.student, first)
    texts = texts_of(job.method, plan.steps)
    # Every process reads the shared texts, but only the main one is charged, so that the sum counts them once.
    charged = cost if accelerator.is_main_process else Cost()
    # The main process writes the texts; the others wait and then find them in the cache.
    if Source.TEACHER in texts:
        with accelerator.main_process_first():
            rollouts.teacher_texts = _texts(job, members, writers, rollouts, accelerator, charged, progress)
    # A teacher of texts is done: no step will read its distribution.
    if needs.teacher != "signal":
        return setup

    # The signal. Each teacher's is its own, cached for fixed text; ``caches`` is called by signals that want one.
    def shares(source: Source, example: int) -> list[float]:
        """The share of each teacher in an example."""
        return weights_of(members, (job.data.labelled if source is Source.DATA else job.data.prompts)[example])

    if needs.pairing is not None:
        setup.reading = _reading(job, needs.pairing, first, rollouts, texts)
        vocab = setup.reading.vocab

    def fixed(source: Source, i: int) -> TrainingSequence:
        """A fixed text as the teacher reads it."""
        sequence = rollouts.fixed(source, i)
        return sequence if setup.reading is None else setup.reading.of(sequence)[0]

    def signal_of(place: int) -> TeacherSignal:
        """The signal of one teacher, with caches for its texts."""
        writer, live = writers[place], None
        if isinstance(writer, RemoteEngine):
            live = ServedTeacher(writer, vocab, spare(members[place].files, vocab))
        else:
            live = LiveTeacher(writer.model, vocab, accelerator.device)
            if writer is first and rollouts.proposals is not None:
                rollouts.proposals.reader = live
        signal = cls(SignalInputs(live, vocab, plan, lambda kind, k: caches(place, live, kind, k)))
        return CheckedSignal(signal) if is_own(cls) else signal

    def caches(place: int, live: LiveTeacher | ServedTeacher, kind: str, k: int | None) -> dict[Source, SignalCache]:
        """Filled caches of the signal of fixed text. Methods and seeds that train on the same text share them."""
        facts = _facts(job, members[place], vocab, kind)
        pad = (writers[place] if setup.reading else rollouts.student).pad_id
        filled = {}
        for source in (s for s in FIXED if s in texts):
            read = rollouts.numbers(source)
            read = [i for i in read if shares(source, i)[place] > 0] if job.teachers else read
            cache = SignalCache(job.cache / "signals", facts, read, functools.partial(fixed, source))
            # Ask a server for a whole shard at once; it makes its own batches.
            size = SHARD_SEQUENCES if isinstance(live, ServedTeacher) else plan.micro_batch
            with accelerator.main_process_first():
                cache.fill(
                    lambda part, size=size: _read(live, part, k, size, pad, accelerator.device),
                    lambda done, total: progress("teacher signal", done, total, ""),
                )
            # Another process may have written the shards, so check all of them before the first step.
            cache.verify(fields_of(k))
            # Charge the whole text even if the cache was full, so that cached runs do not look cheaper.
            charged.add(teacher_forward_tokens=cache.read_tokens)
            filled[source] = cache
        return filled

    cls = signal_called(plan.signal)
    with error_location.faults_as(RunFailed, called=cls):
        signals = [signal_of(place) for place in range(len(members))]
    setup.facts = {"kind": cls.name} | signals[0].facts()
    setup.signal = signals[0] if setup.reading is None else PairedSignal(signals[0])
    # Several teachers: the mixture reads each one only on the rows where it has a weight.
    if len(signals) > 1:
        setup.signal = MixedSignal(signals, lambda batch, i: shares(batch.sources[i], batch.examples[i]))
    return setup


def room_of_teacher(job: TrainingJob) -> int | None:
    """The tokens that fit the teaching model's context; None if its configuration does not say."""
    itself = job.method.needs.asking is None or teaches_itself(job.method) or job.teacher is None
    return context_of(job.student if itself else job.teacher)


def _opened(
    job: TrainingJob,
    one: Teaching,
    vocab: int,
    gather: Callable[[list[Any]], list[Any]],
    accelerator: Accelerator,
    progress: Progress,
) -> Generator | RemoteEngine:
    """One teacher: loaded, or on its engine, which several processes share."""
    if (choice := loading.engine_of(one.loaded)) is not None:
        choice = engine_choice.with_dtype(choice, loading.dtype_of(one.loaded, job.recipe.training.precision))
        return engines.remote(
            one.files,
            choice,
            one.loaded.device or job.device,
            job.folder / f"vllm-{one.name}.log",
            words=job.words,
            top=max(20, job.recipe.training.top_k + spare(one.files, vocab)),
            gather=gather if accelerator.num_processes > 1 else None,
            leads=accelerator.is_main_process,
            waiting=lambda came, total: progress(f"teacher {one.name} behind {choice.word}", came, total, ""),
        )
    _own_device(one.loaded.device, accelerator)
    model = loading.load(one.files, one.loaded, job.recipe.training.precision, str(accelerator.device))
    return Generator(model, load_tokenizer(one.files), job.recipe.evaluation.batch, job.words)


def _writer(
    job: TrainingJob, one: Teaching, teacher: Generator | RemoteEngine, accelerator: Accelerator, progress: Progress
) -> Generator | RemoteEngine:
    """The engine that writes the teacher's texts: the one that the recipe names for them, else the teacher's own."""
    word = job.recipe.teacher_text.engine or engine_choice.IN_PROCESS
    if (choice := engine_choice.chosen(word, "teacher_text.engine")) is None:
        return teacher
    choice = engine_choice.with_dtype(choice, loading.dtype_of(one.loaded, job.recipe.training.precision))
    log = job.folder / f"vllm-{one.name}-texts.log"
    writer = engines.remote(one.files, choice, one.loaded.device or job.device, log, words=job.words)
    writer.end_ids = teacher.end_ids
    return writer


def _self_teacher(
    job: TrainingJob, asking: Asking, student: PreTrainedModel, vocab: int, device: str
) -> tuple[LiveTeacher, MovingTeacher | None]:
    """The student as its own teacher: initial, moving average, or current. Raises BadInput if it is sharded."""
    if asking.model == "initial":
        return LiveTeacher(load_model(job.student, job.recipe.training.precision, device), vocab), None
    if processes.sharded():
        raise BadInput(
            f"{job.run.label}: a teacher that follows the student ({asking.model}) needs whole weights on every "
            "process; launch without FSDP, or take the initial student"
        )
    if asking.model == "live":
        return SelfTeacher(student, vocab), None
    moving = MovingTeacher(student, asking.decay)
    return LiveTeacher(moving.model, vocab), moving


def _proposals(job: TrainingJob, student: Generator, teacher: Generator) -> Proposals:
    """Both models' next steps, with the estimator of the method; the plan checked that the data supports it."""
    needs, data, how = job.method.needs, job.data, proposing_of(job.method)
    assert how is not None, "the method asks for proposals"
    segments = Segments(student.tokenizer, needs.segment, needs.span)
    estimator: Any
    if how.validity == "checker":
        assert data.checker is not None, "the plan refuses an estimator that the data lacks"
        estimator = CheckerValidity(data.checker)
    elif how.validity == "success":
        assert data.grader is not None, "the plan refuses an estimator that the data lacks"
        continuer = teacher if how.continued_by == "teacher" else student
        estimator = SuccessValidity(continuer, data.grader, how, job.recipe.rollout.max_new_tokens)
    elif how.validity == "likelihood":
        estimator = LikelihoodValidity(teacher)
    elif how.validity == "agreement":
        estimator = AgreementValidity(teacher, how, segments, data.same)
    else:
        estimator = TruthValidity(teacher)
    # Values that depend only on the teacher are cached by content, for later steps and other seeds.
    if how.validity in ("agreement", "truth") or (how.validity == "success" and how.continued_by == "teacher"):
        assert job.teacher is not None, "proposals have a teacher"
        known = job.teacher.sha256 + loading.suffix(job.recipe.teacher)
        facts = {"teacher": known, "how": str(how), "unit": needs.segment, "span": needs.span}
        facts |= {"longest": job.recipe.rollout.max_new_tokens, "data": job.recipe.data.prompts}
        estimator = Remembered(estimator, CacheFile(job.cache / "validity", facts))
    checker = data.checker if needs.segment == "line" else None
    return Proposals(student, teacher, estimator, how, segments, checker)


def _reading(
    job: TrainingJob, pairing: Pairing, teacher: Generator | RemoteEngine, rollouts: Rollouts, texts: set[Source]
) -> TeacherReading:
    """How the teacher reads texts in its own tokens. Raises BadInput if too few of them pair with the student's."""
    if isinstance(teacher, RemoteEngine):
        raise BadInput(f"method {job.method.name} reads the teacher's weights; a served teacher has none")
    vocab = min(len(teacher.tokenizer), teacher.model.get_output_embeddings().weight.shape[0], job.words or MANY)
    reading = TeacherReading(pairing, rollouts.student, teacher, job.data, vocab, job.words is not None)
    # Try the pairing on a few fixed texts now: tokenizers of which no text has a pair leave nothing to train on.
    for source in sorted(set(FIXED) & texts):
        some = [rollouts.fixed(source, i) for i in rollouts.numbers(source)[:LOOKED_AT]]
        reading.check([one for one in some if one.response], "teacher" if source is Source.TEACHER else "data")
    return reading


def _own_device(name: str | None, accelerator: Accelerator) -> None:
    """Raises BadInput if the teachers of several processes would share one named device."""
    if accelerator.num_processes > 1 and name is not None and ":" in name:
        raise BadInput(
            f"teacher.device={name} puts the teachers of {accelerator.num_processes} processes onto one device; leave "
            "it out, and each is on the device of its process"
        )


def _texts(
    job: TrainingJob,
    members: Seq[Teaching],
    writers: Seq[Generator | RemoteEngine],
    rollouts: Rollouts,
    accelerator: Accelerator,
    charged: Cost,
    progress: Progress,
) -> dict[int, tuple[int, ...]]:
    """The teachers' answers to the prompts of all steps, in the student's token ids, by the prompt's number."""
    written: dict[int, tuple[int, ...]] = {}
    for k, (one, writer) in enumerate(zip(members, writers, strict=True)):
        own = rollouts.numbers(Source.TEACHER)
        own = [i for i in own if writer_of(members, job.data.prompts[i]) == k] if job.teachers else own
        writes = _writer(job, one, writer, accelerator, progress)
        written |= _texts_of(job, one, writes, rollouts.student, own, charged, progress) if own else {}
        # A server that only wrote texts holds memory that training needs.
        if isinstance(writes, RemoteEngine) and writes is not writer:
            writes.server.stop()
        # The next use is the signal, which needs none of the buffers kept for sampling: free them.
        if isinstance(writer, Generator):
            writer.release()
    return written


def _texts_of(
    job: TrainingJob,
    one: Teaching,
    teacher: Generator | RemoteEngine,
    student: Generator,
    numbers: Seq[int],
    charged: Cost,
    progress: Progress,
) -> dict[int, tuple[int, ...]]:
    """One teacher's answers to the prompts with these numbers."""
    prompts = [job.data.prompts[i] for i in numbers]
    answers = teacher_texts(
        teacher,
        one.files.sha256 + loading.suffix(one.loaded) + _written_by(job),
        prompts,
        job.recipe.teacher_text,
        job.cache / "teacher_texts",
        lambda done, total, details: progress("teacher texts", done, total, details),
    )
    generated, encoded = sum(g.tokens for g in answers), sum(g.prompt_tokens for g in answers)
    charged.add(generated_tokens=generated, teacher_forward_tokens=generated + encoded)
    # With another tokenizer, encode the teacher's text again: sequence-level distillation needs only the text.
    if teacher.tokenizer.get_vocab() == student.tokenizer.get_vocab():
        # The student learns its own template's end of turn, whichever token ended the teacher's answer.
        own = [(*g.ids[:-1], student.end_id) if g.ids and g.ids[-1] in teacher.end_ids else g.ids for g in answers]
    else:
        own = [
            student.answer_ids(example.prompt, g.text, ended=g.finish == "stop")
            for example, g in zip(prompts, answers, strict=True)
        ]
    return dict(zip(numbers, own, strict=True))


def _written_by(job: TrainingJob) -> str:
    """The part of a key of cached texts for a separate engine that writes them."""
    choice = engine_choice.chosen(job.recipe.teacher_text.engine or engine_choice.IN_PROCESS, "teacher_text.engine")
    return f"+texts={choice.word}" if choice is not None else ""


def _facts(job: TrainingJob, one: Teaching, vocab: int, kind: str) -> dict[str, str]:
    return {
        "teacher": one.files.sha256,
        "tokenizer": template_hash(job.student),
        "vocabulary": str(vocab),
        "signal": kind,
        "precision": loading.dtype_of(one.loaded, job.recipe.training.precision),
        **({"quantization": one.loaded.quantization} if one.loaded.quantization else {}),
        **({"engine": engine.word} if (engine := loading.engine_of(one.loaded)) else {}),
        **({} if job.method.needs.asking is None else {"asked": job.method.needs.asking.template}),
    }


def _read(
    live: LiveTeacher | ServedTeacher,
    sequences: Seq[TrainingSequence],
    k: int | None,
    size: int,
    pad: int,
    device: torch.device,
) -> dict[str, torch.Tensor]:
    """The fields of the sequences' response tokens, in order, ``size`` sequences per forward pass."""
    parts = []
    for start in range(0, len(sequences), size):
        batch = collate(sequences[start : start + size], pad, None, device)
        parts.append(live.fields(batch, k))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
