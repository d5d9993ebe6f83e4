"""``harness run``, read first: a plan in, one immutable record per (trained student, task) out.

    plan -> train (or reuse) the student -> completions -> verdicts -> score -> record

Every arrow leaves a file below ``work`` of the results folder, so the same command goes on after an interruption, a
second task never trains again, and asking for what is already recorded returns the record.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from harness import convention
from harness.estimate import model_size
from harness.evaluation import evaluate, measurement, round_trip
from harness.evaluation.lm_eval_task import LmEvalTask
from harness.launch import processes
from harness.method import ReferencePoint
from harness.models.engines import open_generator
from harness.models.files import ModelFiles
from harness.plan import Plan, TrainingRun, words_of
from harness.records import curves, interrupted, provenance, record, students
from harness.reports.export import card
from harness.task import Task
from harness.training import examples
from harness.training.job import Progress, TrainingJob, TrainingResult
from harness.training.loop import train
from harness.training.tracking import Tracking
from harness.types import Problem


def run(plan: Plan, progress: Progress, announce: Callable[[str], None]) -> list[dict[str, Any]]:
    """The records of a plan, in the order methods x seeds x tasks; ``reused`` says which existed before.

    Under a launcher the first process makes them; the others train with it and return none.
    """
    processes.join(plan.device)
    if not processes.leads():
        work = plan.request.results / "work"
        processes.follow(plan.trainings, lambda training: _train(plan, training, work, lambda *_: None))
        return []
    found = []
    for training in plan.trainings:
        for word, task in zip(dict.fromkeys(plan.request.tasks), plan.tasks, strict=True):
            found.append(_record(plan, training, task, word, progress, announce))
    processes.tell(None)
    return found


def _record(
    plan: Plan, training: TrainingRun, task: Task, word: str, progress: Progress, announce: Callable[[str], None]
) -> dict[str, Any]:
    """The record of one student on one task, asked for as ``word``: the existing one, or a new one."""
    limit = plan.recipe.evaluation.limit
    foreign = isinstance(task, LmEvalTask)  # asks and grades as lm-eval does
    decoding, protocol, identity = measurement.measurement(plan, training, task)
    work = plan.request.results / "work"
    # A damaged record stops a run, but not one that is to supersede it.
    existing = None if plan.request.again else plan.store.find(identity)
    if existing is not None:
        interrupted.forget_run(work, existing["run_id"])  # of a run that was killed right after it was recorded
        card.catch_up(work / "trained" / training.training_id, plan.store, existing)
        announce(f"{existing['run_id']}: already recorded, returned as it is (--again runs it anew)")
        return existing | {"reused": True}
    attempt, supersedes = plan.store.next_attempt(identity)
    method = training.method
    run_id = record.run_id(
        {"name": method.name, "variant": training.variant}, task.title, training.seed, identity, attempt
    )
    generated = " (generated problems, not the benchmark)" if task.data.world != "real" else ""
    announce(f"{run_id}: {training.label} on {task.title}{generated}" + (f"; {method.note}" if method.note else ""))

    with _lock(work / "locks" / training.training_id):
        interrupted.note_run(work, run_id, training.training_id, training.spec, task.title, protocol)
        folder, facts = obtain(plan, training, work, progress, fresh=plan.request.again)
        generator = open_generator(
            folder, plan.device, plan.recipe.evaluation.batch, work / "generations", again=plan.request.again
        )
    problems = evaluate.problems_of(task, limit)
    prompts = [] if foreign else [problem.prompt for problem in problems]
    guarded = [f"{task.title}: {word}" for word in generator.warnings(prompts, decoding)]
    if not foreign and (lost := _lost(task, problems, generator)):
        guarded.append(lost)
    for warning in guarded:
        announce(f"warning: {warning}")
    first_prompt = "".join(map(generator.render, prompts[:1]))
    if first_prompt:
        announce(f"{task.title}: the first prompt is {first_prompt!r}")
    began = time.monotonic()
    with _lock(work / "locks" / run_id):
        if plan.store.holds(run_id):  # another process ran the same and was quicker
            interrupted.forget_run(work, run_id)
            announce(f"{run_id}: recorded meanwhile by another process, returned as it is")
            return plan.store.get(run_id) | {"reused": True}
        if foreign:
            graded = task.measure(generator, limit, training.seed)
        else:
            graded = evaluate.answer(task, problems, generator, decoding, training.seed, progress)
        score = evaluate.score(task, graded)
        curves.keep(plan.store.root, training.training_id, training.label, training.seed, facts["curve"])
        figures = evaluate.figures(task, graded)
        later = [*facts["warnings"], *evaluate.warnings_of(task, graded, score.counts, figures)]
        plan.store.add(
            {
                "run_id": run_id,
                "identity": identity,
                "attempt": attempt,
                "kind": "measured",
                "method": {
                    "name": method.name,
                    "variant": training.variant,
                    "paper": method.paper,
                    "role": method.role,
                    "evaluates": method.evaluates if isinstance(method, ReferencePoint) else None,
                    "baseline": method.baseline,
                    "reconstruction": method.reconstruction,
                    "note": method.note,
                    "settings": dataclasses.asdict(method.config),
                },
                "task": task.title,
                "world": task.data.world,
                "family": task.family,
                "metric": task.metric,
                "seed": training.seed,
                "student": plan.student.id,
                "teacher": plan.teacher.id if plan.teacher and training.spec.get("teacher") else None,
                "parameters": _parameters(plan),
                "spec": training.spec,
                "training_id": training.training_id,
                "protocol": protocol,
                "score": score.value,
                "interval": list(score.interval),
                "interval_method": score.interval_method,
                "counts": score.counts,
                "measures": figures,
                "cost": facts["cost"]
                | {
                    "eval_seconds": time.monotonic() - began,
                    "eval_generated_tokens": sum(row["tokens"] for row in graded),
                },
                "first_prompt": task.first_prompt if foreign else first_prompt,
                "request": words_of(plan.request, training, word),
                "convention": convention.card(plan, training, facts),
                "provenance": provenance.collect(plan.device),
                "warnings": [*guarded, *later],
                "supersedes": supersedes,
            },
            graded,
        )
        interrupted.forget_run(work, run_id)
    for warning in later:
        announce(f"warning: {warning}")
    made = plan.store.get(run_id)
    if not isinstance(method, ReferencePoint):
        card.refresh(folder.path, plan.store, made)
    return made | {"reused": False}


def _parameters(plan: Plan) -> dict[str, int | None]:
    """How many each model of the run has, so that its cost can be counted where its files are not."""
    models = {"student": plan.student, "teacher": plan.teacher}
    return {side: None if m is None or m.url is not None else model_size.parameters(m) for side, m in models.items()}


def _lost(task: Task, problems: list[Problem], generator: Any) -> str | None:
    """A warning where the model's tokenizer does not give back what the task writes; a server's is not known."""
    return round_trip.tried(task, generator, problems).warning if hasattr(generator, "tokenizer") else None


def obtain(
    plan: Plan, training: TrainingRun, work: Path, progress: Progress, *, fresh: bool = False
) -> tuple[ModelFiles, dict[str, Any]]:
    """The trained student's folder and what its training cost; trains unless it is already there."""
    method = training.method
    if isinstance(method, ReferencePoint):
        files = plan.teacher if method.evaluates == "teacher" else plan.student
        nothing = {
            "steps": 0,
            "student_tokens": 0,
            "teacher_forward_tokens": 0,
            "generated_tokens": 0,
            "seconds": 0.0,
            "peak_memory_bytes": 0,
        }
        return files, {"cost": nothing, "warnings": [], "curve": [], "signal": {}}
    folder = work / "trained" / training.training_id
    if fresh and students.is_there(folder) and training.training_id not in _fresh:
        students.remove(folder)
    _fresh.add(training.training_id)
    scratch = work / "training" / training.training_id
    if not students.is_there(folder):
        processes.tell(training.training_id)
        outcome = _train(plan, training, work, progress)
        facts = {
            "spec": training.spec,
            "cost": outcome.cost.as_dict(),
            "warnings": outcome.warnings,
            "curve": outcome.curve,
            "signal": outcome.signal,
            "told": card.provenance_text(method, plan.recipe.data, plan.prompts, plan.labelled),
        }
        students.publish(outcome.model, outcome.tokenizer, facts, folder)
    shutil.rmtree(scratch, ignore_errors=True)  # also what a run that was killed while publishing has left
    return ModelFiles(training.training_id, folder, ""), students.facts_of(folder)


def _train(plan: Plan, training: TrainingRun, work: Path, progress: Progress) -> TrainingResult:
    """Trains, on every process of a launch alike."""
    scratch = work / "training" / training.training_id
    scratch.mkdir(parents=True, exist_ok=True)
    if processes.leads():
        interrupted.note_training(scratch, training.spec)
    training.method.state = {}
    job = TrainingJob(
        training_id=training.training_id,
        method=training.method,
        recipe=plan.recipe,
        student=plan.student,
        teacher=plan.teacher,
        prompts=plan.prompts,
        labelled=plan.labelled,
        validation=plan.validation,
        seed=training.seed,
        folder=scratch,
        texts=work / "teacher_texts",
        signals=work / "signals",
        device=plan.device,
        checker=examples.checker(plan.recipe.data.prompts),
        tracking=Tracking(tuple(plan.request.track), work / "tracking"),
        settings=training.spec,
    )
    return train(job, progress)


_fresh: set[str] = set()  # trained by this process: --again trains once, not once per task


def _lock(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(f"{path}.lock")
