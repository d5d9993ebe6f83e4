"""The specification of a training: everything that determines the trained student. Its hash is the training id.

Settings that do not affect a training are left out, so that changing them does not train it again. Later settings
are left out if they match the earlier behaviour, which keeps the ids of earlier trainings.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import options, registry, user_code
from harness.errors import BadInput
from harness.method import Method, ReferencePoint
from harness.models import adapters, devices, engine_choice, loading
from harness.models import files as models
from harness.recipe import Before, Recipe, Training
from harness.records.record import fingerprint
from harness.records.work_folder import student_folder
from harness.training import job, pools, several_teachers, teacher_prompt, verdicts
from harness.training.job import TrainingRun, teaches_itself
from harness.training_data import examples
from harness.types import Source

if TYPE_CHECKING:
    from harness.models.files import ModelFiles
    from harness.request import Plan
    from harness.training.job import TrainingRun

LOOP = "2"  # raise this if the same specification would train other weights
# These change how a run proceeds, not its result; the specification has the epochs as steps.
NOT_IN_SPEC = {"checkpoint_every", "threads", "gradient_checkpointing", "epochs", "divergence_every"}
Configured = tuple[Method, str | None, str]  # with its variant and its origin


def wants_teacher(method: Method) -> bool:
    """Whether the method uses the recipe's teacher."""
    if isinstance(method, ReferencePoint):
        return method.evaluates == "teacher"
    return not teaches_itself(method) and job.asks_teacher(method)


def training_of(plan: Plan, configuration: Configured, seed: int, first: Configured | None) -> TrainingRun:
    """The training of a configuration and a seed, with its first stage."""
    own = _training(plan, *configuration, seed)
    if first is None or isinstance(own.method, ReferencePoint):
        return own
    early = dataclasses.replace(plan, recipe=recipe_of_first(plan.recipe))
    begun = dataclasses.replace(_training(early, *first, seed), recipe=early.recipe)
    spec = own.spec | spec_after(begun)
    return dataclasses.replace(own, spec=spec, training_id=_training_id(spec), first=begun)


def _training(plan: Plan, method: Method, variant: str | None, origin: str, seed: int) -> TrainingRun:
    """One training with its spec. What came after the first records is in a spec only where it is used, so that the
    hashes of earlier trainings stay.
    """
    settings = options.spelt(method.config)
    spec: dict[str, Any] = {
        "method": {"name": method.name, "variant": variant, "settings": settings, "origin": origin},
        "student": (plan.student if isinstance(method, ReferencePoint) else plan.pair.student).identity(),
        "seed": seed,
    }
    if isinstance(method, ReferencePoint):
        if method.evaluates == "teacher":
            spec["student"] = plan.teacher.identity()
            spec |= loading.in_spec(plan.recipe.teacher)
        return TrainingRun(method, variant, origin, seed, spec, _training_id(spec))
    chosen = plan.recipe_of(method)
    texts = job.sources_of(method, chosen.training)
    signal = registry.find(registry.SIGNALS, chosen.training.signal)
    # The precision that results is added below: proposals of fixed text are sampled from a copy of the student, too.
    spec |= {
        "loop": LOOP,
        "teacher": plan.pair.teacher.identity() if wants_teacher(method) else None,
        "training": _settings(chosen.training, method, signal),
        "rollout": engine_choice.spelt(chosen.rollout, "rollout") if texts & {Source.STUDENT, Source.MIXED} else None,
        "teacher_text": engine_choice.spelt(chosen.teacher_text, "teacher_text") if Source.TEACHER in texts else None,
        "prompts": examples.fingerprint(plan.data_of(method).prompts) if texts - {Source.DATA} else None,
        "labelled": examples.fingerprint(plan.data.labelled) if Source.DATA in texts else None,
        "validation": examples.fingerprint(plan.data.validation) if method.needs.validate_every else None,
    }
    if (asking := method.needs.asking) is not None:
        prompts = [teacher_prompt.prompt_for(example, asking).user for example in plan.data_of(method).prompts]
        spec["asking"] = dataclasses.asdict(asking) | ({"prompts": fingerprint(prompts)} if asking.template else {})
    code = user_code.identity(signal)
    if pools.validity_of(method) == "success" and plan.recipe.data.grader is not None:
        spec["grader"] = plan.recipe.data.grader
    if method.needs.rewards and plan.recipe.data.grader is not None:
        spec["grader"] = verdicts.identity_of(plan.recipe.data.grader)
    if method.needs.hindsight is not None:
        spec["hindsight"] = dataclasses.asdict(method.needs.hindsight)
    if code != user_code.OURS and method.needs.teacher == "signal":
        spec["signal_code"] = code
    if texts & {Source.STUDENT, Source.MIXED} or method.needs.proposals:
        spec |= devices.precision_in_spec(chosen)
    if adapters.wanted(chosen.student):
        spec["adapter"] = dataclasses.asdict(chosen.student)  # absent if all weights are trained
    if wants_teacher(method):
        spec |= loading.in_spec(chosen.teacher)
    if wants_teacher(method) and plan.teachers:
        prompts = plan.data.prompts if texts - {Source.DATA} else []
        read = (prompts, plan.data.labelled if Source.DATA in texts else [])
        field = chosen.data.teacher_field
        rows = fingerprint({"rows": several_teachers.named(read)})[:16] if field else None
        spec |= several_teachers.in_spec(plan.teachers, field, rows)
    codec = models.text_codec(plan.pair.student)
    if codec is not None and any(codec.frame) and texts & {Source.DATA, Source.TEACHER}:
        spec["answer_frame"] = list(codec.frame)  # absent if the template writes nothing around an answer
    if rule := models.text_rule(plan.pair.student):
        spec["text"] = rule  # absent for most tokenizers, which keeps their hashes
    return TrainingRun(method, variant, origin, seed, spec, _training_id(spec))


def _settings(training: Training, method: Method, signal: type[Any]) -> dict[str, Any]:
    """The settings that affect this training: changing another does not train it again."""
    settings = options.set_apart(training)
    settings["signal"] = signal.name  # a file's own name, not where it is kept
    unused = set() if signal.takes_top_k else {"top_k"}
    if method.needs.teacher != "signal":
        unused = {"signal", "top_k"}
    if settings["decay_norms"] or not settings["weight_decay"]:
        unused = unused | {"decay_norms"}  # keeps the hashes of trainings from before this setting existed
    if settings.get("optimizer") not in ("sgd", "muon"):
        unused = unused | {"momentum"}
    return {key: value for key, value in settings.items() if key not in NOT_IN_SPEC | unused}


def _training_id(spec: Mapping[str, Any]) -> str:
    """The id of a trained student. A variant and the same settings given one by one are the same training."""
    method = {key: value for key, value in spec["method"].items() if key != "variant"}
    return f"{method['name']}-{fingerprint({**spec, 'method': method})[:16]}"


# Two consecutive trainings of one student: ``[before]`` of a recipe names the method of the first.
#
# Every seed trains it first, or finds its student on disk, and all methods of the recipe start from that student; so
# several second stages share one first stage. A specification contains that of its first stage, under ``after``; a
# record has the cost of both. The first stage reads the recipe's data and takes the settings of its variant and of
# ``[method.NAME]``; ``--set method.*`` applies only to the methods of the command.

FIRST_STAGE = ("steps", "learning_rate", "batch")  # of the first stage, replacing the recipe's


def check_before(chosen: Recipe) -> None:
    """Raises BadInput for settings of a first stage that names no method."""
    if chosen.before.method is None and chosen.before != Before():
        setting = next(name for name in FIRST_STAGE if getattr(chosen.before, name) is not None)
        raise BadInput(f"before.{setting} belongs to a first stage: name its method with before.method")


def check_first(method: Method) -> None:
    """Raises BadInput for a first stage that trains nothing."""
    if isinstance(method, ReferencePoint):
        raise BadInput(f"before.method={method.name} trains nothing; remove it, or name a method that trains")


def recipe_of_first(chosen: Recipe) -> Recipe:
    """The recipe of the first stage."""
    own = {name: value for name in FIRST_STAGE if (value := getattr(chosen.before, name)) is not None}
    if "steps" in own:
        own["epochs"] = None
    return dataclasses.replace(chosen, before=Before(), training=dataclasses.replace(chosen.training, **own))


def spec_after(first: TrainingRun) -> dict[str, Any]:
    """The first stage in a specification: its specification without the seed, which is shared."""
    return {"after": {key: value for key, value in first.spec.items() if key != "seed"}}


def started_from(student: ModelFiles, work: Path, first: TrainingRun) -> ModelFiles:
    """The student of the first stage, in the format of the recipe's student."""
    where = student_folder(work, first.training_id)
    return dataclasses.replace(student, id=first.training_id, path=where, sha256="", gguf=None, adapter=None)


def cost_of_both(first: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The cost of two trainings: tokens, texts, steps and seconds add up, memory is the larger."""
    keys = dict.fromkeys((*first, *own))
    total = {key: first.get(key, 0) + own.get(key, 0) for key in keys}
    return total | {"peak_memory_bytes": max(first["peak_memory_bytes"], own["peak_memory_bytes"])}


def facts_of_stages(first: TrainingRun, before: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of two stages in training.json: the cost of both together, and the first stage with its cost."""
    stage = {"training_id": first.training_id, "method": first.label, "cost": before["cost"]}
    return {"cost": cost_of_both(before["cost"], own), "before": stage}
