"""The student of a training run: loaded if already trained, else trained now."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import model_card, specification
from harness.launch import processes
from harness.method import ReferencePoint
from harness.models.files import ModelFiles
from harness.recipe import Evaluation, TeacherLoading
from harness.records import work_folder
from harness.records.curves import Tracking
from harness.training.job import TrainingJob, TrainingResult

if TYPE_CHECKING:
    from harness.models.engine_choice import EngineChoice
    from harness.models.generation_cache import CachedGenerator
    from harness.request import Plan
    from harness.training.job import Progress, TrainingRun

UNTRAINED: dict[str, Any] = {
    "cost": {
        "steps": 0,
        "student_tokens": 0,
        "teacher_forward_tokens": 0,
        "generated_tokens": 0,
        "seconds": 0.0,
        "peak_memory_bytes": 0,
    },
    "warnings": [],
    "curve": [],
    "signal": {},
}


@dataclass(frozen=True)
class EvaluationModel:
    """A model to evaluate. ``facts`` describe its training: cost, curve, warnings, teacher signal."""

    files: ModelFiles
    facts: dict[str, Any]
    trained: bool
    loaded: TeacherLoading = field(default_factory=TeacherLoading)

    def generator(
        self, device: str, chosen: Evaluation, cache: Path, again: bool, engine: EngineChoice | None = None
    ) -> CachedGenerator:
        """Loads the model, or opens its engine. Completions are cached in ``cache``; ``again`` generates
        again with a served model.
        """
        from harness.models.engines import DTYPE, open_generator

        loaded = self.loaded if chosen.dtype == DTYPE else replace(self.loaded, dtype=chosen.dtype)
        return open_generator(self.files, device, chosen.batch, cache, again=again, loaded=loaded, engine=engine)


def obtain(plan: Plan, training: TrainingRun, progress: Progress, *, fresh: bool = False) -> EvaluationModel:
    """The student of ``training``. Trains it unless it is on disk; ``fresh`` trains again, once per process.

    A reference point is the untrained student or the teacher.
    """
    method = training.method
    if isinstance(method, ReferencePoint):
        if method.evaluates != "teacher":
            return EvaluationModel(plan.student, UNTRAINED, trained=False)
        assert plan.teacher is not None, "the plan locates the teacher for a reference point that evaluates it"
        # Load it as in training: quantised, if it teaches quantised.
        return EvaluationModel(plan.teacher, UNTRAINED, trained=False, loaded=plan.recipe.teacher)
    # The second of two stages starts from the student of the first.
    if training.first is not None:
        obtain(plan, training.first, progress, fresh=fresh)
    folder = work_folder.student_folder(plan.work, training.training_id)
    if fresh and work_folder.is_there(folder) and training.training_id not in _fresh:
        work_folder.remove(folder)
    _fresh.add(training.training_id)
    # Train, with the other processes of the launch, and publish the student and the facts of its training at once.
    if not work_folder.is_there(folder):
        processes.tell(training.training_id)
        result = train_run(plan, training, progress)
        facts = {
            "spec": training.spec,
            "cost": result.cost.as_dict(),
            "warnings": result.warnings,
            "curve": result.curve,
            "signal": result.signal,
            "weights": result.weights,
            **({"engine": result.engine} if result.engine else {}),
            "told": model_card.provenance_text(method, plan.recipe.data, plan.data.prompts, plan.data.labelled),
        }
        if (first := training.first) is not None:
            facts |= specification.facts_of_stages(
                first, work_folder.facts_of(work_folder.student_folder(plan.work, first.training_id)), facts["cost"]
            )
        work_folder.publish(result.model, result.tokenizer, facts, folder, result.adapter)
    # Also removes leftovers of a run killed while publishing.
    shutil.rmtree(_scratch(plan, training), ignore_errors=True)
    facts = work_folder.facts_of(folder, training.spec)
    # A trained student needs the code of the student it was trained from.
    files = ModelFiles(training.training_id, folder, "", trusted=plan.student.trusted)
    return EvaluationModel(files, facts, trained=True)


def train_run(plan: Plan, training: TrainingRun, progress: Progress) -> TrainingResult:
    """Trains the student. Every process of a launch must call this."""
    from harness.models.engines import stop_servers
    from harness.training.loop import train

    scratch = _scratch(plan, training)
    scratch.mkdir(parents=True, exist_ok=True)
    if processes.leads():
        work_folder.note_training(scratch, training.spec)
    training.method.state = {}
    tracking = Tracking(tuple(plan.request.track), plan.work / "tracking")
    start = plan.pair.student
    if training.first is not None:
        start = specification.started_from(start, plan.work, training.first)
    job = TrainingJob(
        training,
        plan.recipe_of(training.method, training.recipe),
        start,
        plan.pair.teacher,
        plan.data_of(training.method),
        scratch,
        plan.work,
        plan.device,
        tracking,
        words=plan.pair.words if training.spec["teacher"] else None,
        teachers=plan.teachers if training.spec["teacher"] else (),
    )
    try:
        return train(job, progress)
    finally:
        stop_servers()  # also after an error: a server occupies memory and a folder of this run


def _scratch(plan: Plan, training: TrainingRun) -> Path:
    """The folder of checkpoints while the student trains."""
    return plan.work / "training" / training.training_id


_fresh: set[str] = set()  # students trained by this process: --again trains once, not once per task
