"""``harness run``; read this first: a plan in, one immutable record per (trained student, task) out.

    plan -> train the student, or reuse it -> generate -> grade -> score -> record

Every stage leaves a file below ``work`` of the results folder. The same command therefore resumes after an
interruption, a second task never trains again, and a measurement that is already recorded returns its record.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from harness import answered, measured, model_card
from harness.evaluation import evaluate, measurement
from harness.launch import processes
from harness.models.files import text_codec
from harness.plan import introduction
from harness.progress import LOADING
from harness.records import curves, work_folder
from harness.students import obtain, train_run
from harness.training import pools

if TYPE_CHECKING:
    from harness.evaluation.measurement import Measurement
    from harness.request import Plan
    from harness.task import Task
    from harness.training.job import Progress, TrainingRun

Announce = Callable[[str], None]


def run(plan: Plan, progress: Progress, announce: Announce) -> list[dict[str, Any]]:
    """The records of a plan, in the order methods x seeds x tasks; ``reused`` says which existed before.

    Under a launcher, the first process returns them; the others train with it and return none.
    """
    processes.join(plan.device)
    if not processes.leads():
        known = {training.training_id: training for training in plan.stages}
        processes.follow(lambda training_id: train_run(plan, known[training_id], lambda *_: None))
        return []
    for line in introduction(plan):
        announce(line)
    records = []
    for training in plan.trainings:
        for task in plan.tasks:
            chosen = measurement.of(plan, training, task)
            # A damaged record stops a run, unless --again supersedes it.
            existing = None if plan.request.again else plan.store.find(chosen.identity)
            if existing is not None:
                records.append(answered.reuse(plan, training, existing, announce))
            else:
                records.append(_measure(plan, training, task, chosen, progress, announce))
    processes.tell(None)
    return records


def _measure(
    plan: Plan, training: TrainingRun, task: Task, chosen: Measurement, progress: Progress, announce: Announce
) -> dict[str, Any]:
    """Trains, evaluates and records one student on one task."""
    from harness.models.engines import stop_servers

    evaluation = plan.recipe.evaluation
    attempt, supersedes = plan.store.next_attempt(chosen.identity)
    run_id = measured.run_id(training, task, chosen.identity, attempt)
    announce(f"{run_id}: {measured.title(training, task)}")

    # The student. The locks keep two commands from training it, or the first of its two stages, at the same time.
    early = training.first.training_id if training.first else None
    with work_folder.lock(plan.work, early), work_folder.lock(plan.work, training.training_id):
        work_folder.note_run(plan.work, run_id, training.training_id, training.spec, task.title, chosen.protocol)
        student = obtain(plan, training, progress, fresh=plan.request.again)
        progress(*LOADING)
        kept = plan.work / "generations"
        generator = student.generator(plan.device, evaluation, kept, plan.request.again, chosen.engine)

    # Show the rendered prompt and its warnings before generation, because they can decide a score.
    problems = measurement.problems_of(task, evaluation.limit)
    warnings = evaluate.prompt_warnings(task, problems, generator, chosen.decoding)
    of_data = [*plan.pair.warnings, *plan.data.warnings] if student.trained else []
    if student.trained and problems and not task.measures_itself:
        unlike = pools.unlike_prompts(plan.data, problems[0].prompt, text_codec(plan.pair.student))
        warnings += [f"{task.title}: {line}" for line in unlike]
    for warning in warnings:
        announce(f"warning: {warning}")
    if first := evaluate.first_prompt(task, problems, generator):
        announce(f"{task.title}: the first prompt is {first!r}")

    began = time.monotonic()
    with work_folder.lock(plan.work, run_id):
        if plan.store.holds(run_id):
            work_folder.forget_run(plan.work, run_id)
            announce(f"{run_id}: recorded meanwhile by another process, returned unchanged")
            return plan.store.get(run_id) | {"reused": True}

        # Completions and their verdicts, then the score.
        graded, first = evaluate.evaluate(
            task, problems, generator, chosen.decoding, evaluation.limit, training.seed, progress
        )
        score, figures = evaluate.score(task, graded), evaluate.figures(task, graded)
        later = [*student.facts["warnings"], *evaluate.warnings_of(task, graded, score.counts, figures)]

        # The record, written once.
        curves.keep(plan.store.root, training.training_id, training.label, training.seed, student.facts["curve"])
        names = {"run_id": run_id, "attempt": attempt, "supersedes": supersedes}
        warned = [*of_data, *warnings, *later]
        outcome = measured.Outcome(graded, score, figures, first, warned, time.monotonic() - began)
        plan.store.add(measured.assemble(plan, training, task, chosen, student.facts, outcome) | names, graded)
        work_folder.forget_run(plan.work, run_id)
    stop_servers()  # of vLLM: they hold memory
    for warning in later:
        announce(f"warning: {warning}")
    made = plan.store.get(run_id)
    if student.trained:
        model_card.refresh(student.files.path, plan.store, made)
    return made | {"reused": False}
