"""Reconstructs the request and the command line of a record.

A record contains the resolved settings and hashes, not the typed command. The request is found by starting
from a recipe and overriding the differences; preparing its plan shows whether it means the same training and
measurement. The user supplies what a record cannot contain (the folder of a model, the file of a method, the address of
a judge) as :class:`Replacements`.

Records may come from other machines, so paths in them are not trusted: no code, model or data is read from a path that
only a record names.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import plan, recipe, registry
from harness.errors import BadInput
from harness.evaluation import benchmarks, measurement
from harness.grading.judges import open_judge
from harness.method import Method, ReferencePoint
from harness.models import engine_choice
from harness.models import files as models
from harness.plan import Plan, RunRequest
from harness.recipe import Recipe
from harness.records.record import Record, method_label
from harness.rerun import recipe_settings
from harness.rerun.recipe_settings import setting_of
from harness.resume import leaves
from harness.training_data import examples

DECODING = ("samples", "temperature", "top_p", "max_new_tokens")  # settings that a recipe's [evaluation] may override
NAMES_ONLY = ("name", "card")  # parts of a protocol that name a measurement but do not define it
PLAIN = re.compile(r"[\w+-][\w.+-]*")  # the name of a file in this folder
NAME = re.compile(
    r"((micro|small):)?[\w+-][\w.+-]*(/[\w+-][\w.+-]*)?(@[\w.-]+)?(/[\w+-][\w.+-]*\.gguf)?|openai:[^@]*(@[\w.-]+)?"
)  # of a model
# Settings of which a specification keeps only the outcome: the data read, and how texts are rendered.
NOT_IN_SPEC = ("data.", "models.template=", "models.thinking=")


@dataclass(frozen=True)
class Replacements:
    """Replacements by the user for the record's values, as arguments of ``harness run``; None keeps them."""

    method: str | None = None
    task: str | None = None
    recipe: str | None = None
    student: str | None = None
    teacher: str | None = None
    judge: str | None = None
    device: str | None = None


@dataclass(frozen=True)
class PlannedRerun:
    """The request of a record. ``differs`` says how its plan differs from the record, "" for the same run.

    ``plan`` is None if a model is not on this machine and may not be fetched; the run is then not checked.
    """

    request: RunRequest
    plan: Plan | None
    differs: str
    same_training: bool = False
    of_task: bool = False  # whether what differs is only what the task decides, its version and its grader

    @property
    def exact(self) -> bool:
        return not self.differs


def find(
    record: Record, results: Path, replacements: Replacements = Replacements(), *, fetch: bool = True
) -> PlannedRerun:
    """The request that makes ``record``, with its plan on the results folder ``results``.

    ``fetch``: whether models may be fetched from the hub. Raises BadInput for a specification of another form than this
    version writes, and for a request that cannot be planned on this machine, naming what the user must supply.
    """
    check_form(record, replacements)
    best: PlannedRerun | None = None
    refusal: BadInput | None = None
    for base in _recipes(record, replacements):
        try:
            tried = _try(record, results, replacements, base, fetch)
        except BadInput as error:
            refusal = refusal or error
            continue
        # No other recipe leads nearer where only the task has changed.
        if tried.exact or tried.plan is None or tried.of_task:
            return tried
        if best is None or tried.same_training > best.same_training:
            best = tried
    if best is None:
        hint = "; ".join(_unknown(record, replacements)) or "the record was made with another recipe or version"
        raise BadInput(f"{record['run_id']} cannot be planned here: {refusal} ({hint})")
    return best


def line(request: RunRequest) -> str:
    """``harness run ...`` for a shell, without default values."""
    words = ["harness", "run"]
    for method in request.methods:
        words += ["--method", method]
    for task in request.tasks:
        words += ["--task", task]
    words += ["--seed", *map(str, request.seeds)]
    for option in ("recipe", "student", "teacher", "protocol", "judge", "device"):
        value = getattr(request, option)
        if option == "recipe" and value == plan.DEFAULT_RECIPE and not (request.student or request.teacher):
            continue
        if value is not None and value != RunRequest.__dataclass_fields__[option].default:
            words += [f"--{option}", value]
    for setting in request.settings:
        words += ["--set", setting]
    return shlex.join(words)


def _recipes(record: Record, replacements: Replacements) -> list[str]:
    """The recipes to start from, the most likely first: given, recorded, shipped."""
    if replacements.recipe is not None:
        return [replacements.recipe]
    recorded = record.get("request", {}).get("recipe", "")
    if recorded in recipe.names() or (PLAIN.fullmatch(recorded) and Path(recorded).is_file()):
        return [recorded]
    # Try all shipped recipes, those with the record's models first, the default one before the others.
    mine = {record["student"], record["teacher"]}

    def strange(name: str) -> bool:
        named = recipe.load(name).models
        return not mine & {named.student, named.teacher}

    return sorted(recipe.names(), key=lambda name: (strange(name), name != plan.DEFAULT_RECIPE))


def check_form(record: Record, replacements: Replacements, *, training: bool = True) -> None:
    """Raises BadInput for a record of another form than this version writes, or whose files the user must supply.

    ``training``: whether the method and the models are needed too, or only the task.
    """
    spec, protocol, request = record["spec"], record["protocol"], record.get("request", {})
    method = spec.get("method")
    parts = [spec.get(name) for name in ("training", "rollout", "teacher_text")] + [request]
    parts += [protocol.get(name) for name in ("dataset", "decoding", "grader")]
    sound = isinstance(method, dict) and isinstance(method.get("settings"), dict)
    sound = sound and isinstance(spec.get("student"), dict) and all(isinstance(p, dict | None) for p in parts)
    if not sound:
        raise BadInput(f"{record['run_id']}: its specification has another form than this version writes")
    if unknown := [
        *_task_file(record, replacements),
        *_judge_file(record, replacements),
        *(_training_files(record, replacements) if training else ()),
    ]:
        raise BadInput(f"{record['run_id']} cannot be planned here: {'; '.join(unknown)}")


def _task_file(record: Record, replacements: Replacements) -> Iterator[str]:
    """Whether the user must name the file of the task, because paths in records are not trusted."""
    title = record["task"]
    known = title.partition("@")[0] in _tasks() or re.fullmatch(r"lm_eval:[\w.+-]+", title)
    if replacements.task is None and not known:
        yield f"the task {record.get('request', {}).get('task', title)} came from a file: give it with --task FILE"


def _training_files(record: Record, replacements: Replacements) -> Iterator[str]:
    """The parts of the method, the models and the data that the user must name."""
    request, method = record.get("request", {}), record["method"]
    known = {entry.name for entry in registry.entries(registry.METHODS)}
    plain_variant = method["variant"] is None or re.fullmatch(r"[\w+-]+", method["variant"])
    if replacements.method is None and not (method["name"] in known and plain_variant):
        word, origin = request.get("method", method["name"]), record["spec"]["method"].get("origin", "unknown")
        yield f"the method {word} came from a file (origin: {origin}): give it with --method FILE"
    for role in ("student", "teacher"):
        name = record["spec"]["student"].get("id") if record[role] is None else record[role]
        if getattr(replacements, role) is None and not NAME.fullmatch(str(name)):
            yield f"the {role} {name} is not the name of a model: give it with --{role}"
    for setting in request.get("settings", ()):
        if setting.startswith(NOT_IN_SPEC) and (".." in setting or os.path.isabs(setting.partition("=")[2])):
            yield f"{setting} is a path of another machine: give a recipe with --recipe FILE"


def _try(record: Record, results: Path, replacements: Replacements, base: str, fetch: bool) -> PlannedRerun:
    """The request based on the recipe ``base``, planned and compared with the record."""
    spec, protocol = record["spec"], record["protocol"]
    kept = [s for s in record.get("request", {}).get("settings", ()) if s.startswith(NOT_IN_SPEC)]
    chosen, _ = recipe.override(recipe.load(base), kept)
    word = replacements.method or method_label(record["method"])
    method, _, _ = plan.configured(word, chosen, {})
    task = replacements.task or task_word(record)
    name = (protocol.get("name") or "").removesuffix(measurement.CHANGED) or None
    settings = [
        *kept,
        *_method_settings(spec, method),
        *recipe_settings.of_training(spec, chosen),
        *_evaluation_settings(protocol, task, chosen, name),
    ]
    settings += _data_bounds(spec, chosen)
    student, teacher = _models(record, method, chosen)
    request = RunRequest(
        methods=[word],
        tasks=[task],
        recipe=base,
        student=replacements.student or student,
        teacher=replacements.teacher or teacher,
        seeds=[record["seed"]],
        settings=settings,
        results=results,
        device=replacements.device or _device_word(record),
        judge=replacements.judge or judge_word(record),
        protocol=name,
        engines=False,
    )
    names = {request.student or chosen.models.student, request.teacher or chosen.models.teacher}
    if not fetch and (absent := sorted(name for name in names if not models.is_here(name))):
        return PlannedRerun(request, None, f"not checked, since {' and '.join(absent)} is not on this machine")
    prepared = plan.prepare(request)
    (training,) = prepared.trainings
    same = training.training_id == record["training_id"]
    measured = measurement.of(prepared, training, prepared.tasks[0]).protocol
    changes = {} if same else dict(_changes(spec, training.spec, ""))
    changes |= _changes(protocol, measured, "protocol.")
    of_task = same and all(key == "protocol.version" or key.startswith("protocol.grader.") for key in changes)
    return PlannedRerun(request, prepared, ", ".join(changes.values()), same, of_task)


def _changes(there: Any, here: Any, path: str) -> Iterator[tuple[str, str]]:
    """How the plan differs from the record: each key, and the change in words."""
    there, here = (json.loads(json.dumps(_bare(value))) for value in (there, here))  # JSON turns tuples into lists
    for key, was, is_now in leaves(there, here, path):
        yield key, f"{key} was {_short(was)}, is {_short(is_now)}"


def _bare(value: Mapping[str, Any]) -> dict[str, Any]:
    return {key: part for key, part in value.items() if key not in (*NAMES_ONLY, "hash")}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def task_word(record: Record) -> str:
    """The task for ``--task``, with its world if the title leaves it open."""
    title = record["task"]
    return title if "@" in title or title.startswith(benchmarks.LM_EVAL) else f"{title}@real"


def _tasks() -> set[str]:
    return {entry.name for entry in registry.entries(registry.TASKS)}


def _method_settings(spec: Mapping[str, Any], method: Method) -> list[str]:
    """``method.*`` settings that differ from those of the variant and the recipe."""
    default = json.loads(json.dumps(dataclasses.asdict(method.config)))
    recorded = spec["method"]["settings"]
    return [setting_of(f"method.{k}", v) for k, v in recorded.items() if k not in default or default[k] != v]


def _evaluation_settings(protocol: Mapping[str, Any], task: str, chosen: Recipe, name: str | None) -> list[str]:
    """The decoding and the limit of the measurement, if they differ from task and recipe."""
    settings = []
    dataset = protocol.get("dataset") or {}
    limit = dataset.get("n") if dataset.get("n") != dataset.get("of") else None
    if limit != chosen.evaluation.limit:
        settings.append(setting_of("evaluation.limit", limit))
    if (dtype := protocol.get("dtype", "float32")) != chosen.evaluation.dtype:
        settings.append(setting_of("evaluation.dtype", dtype))
    if (engine := protocol.get("engine", engine_choice.IN_PROCESS)) != chosen.evaluation.engine:
        settings.append(setting_of("evaluation.engine", engine))
    if task.startswith(benchmarks.LM_EVAL):
        return settings  # such a task sets its own decoding
    opened = benchmarks.open_unjudged(task, name)
    default = dataclasses.asdict(measurement.decoding_of(opened, chosen.evaluation))
    recorded = protocol.get("decoding") or {}
    return settings + [
        setting_of(f"evaluation.{k}", recorded[k]) for k in DECODING if k in recorded and recorded[k] != default[k]
    ]


def _data_bounds(spec: Mapping[str, Any], chosen: Recipe) -> list[str]:
    """``first=N`` of the data, if the record read another number of its rows than ``chosen`` does.

    Records before 0.3 limited only the prompts, so a limit in a record may have to be undone.
    """
    bounds, same = [], True
    for name in ("prompts", "labelled"):
        if not spec.get(name):
            continue
        source = getattr(chosen.data, name)
        whole = source.rpartition(",first=")[0] or source
        try:
            pool, own = (
                examples.load(place, chosen.data, labelled=name == "labelled", limit=limit)
                for place, limit in ((whole, None), (source, chosen.data.limit))
            )
        except BadInput:
            continue  # the plan reports the error
        if (used := examples.beginning(pool, spec[name])) is None:
            continue
        same &= used == len(own)
        last = pool[used - 1].id
        rows = int(last) if last.isdigit() else used  # skipped rows count too
        bounds.append(f"data.{name}={whole}" + (f",first={rows}" if used < len(pool) else ""))
    if same:
        return []
    return [*bounds, "data.limit=none"] if chosen.data.limit else bounds


def _models(record: Record, method: Method, chosen: Recipe) -> tuple[str | None, str | None]:
    """The student and the teacher for the request, None if the recipe has the same."""
    student, teacher = record["student"], record["teacher"]
    if isinstance(method, ReferencePoint) and method.evaluates == "teacher":
        teacher = record["spec"]["student"]["id"]
    return (
        None if student == _portable(chosen.models.student) else student,
        None if teacher in (None, _portable(chosen.models.teacher)) else teacher,
    )


def _portable(name: str) -> str:
    """A model's name as in records: the last part of a folder."""
    return models.portable(name) if Path(name).is_dir() else name


def _judge_file(record: Record, replacements: Replacements) -> Iterator[str]:
    """Whether the user must name the file of the judge. A plugin is known by name."""
    word = str(record.get("request", {}).get("judge", ""))
    known = {entry.name for entry in registry.entries(registry.JUDGES)}
    if replacements.judge is None and word and open_judge.split(word)[0] not in known:
        yield f"the judge {word} came from a file: give it with --judge FILE"


def judge_word(record: Mapping[str, Any]) -> str | None:
    """``--judge`` as far as the record contains it: model and settings, never the address."""
    judge = (record["protocol"].get("grader") or {}).get("judge")
    if not isinstance(judge, Mapping):
        return None
    if "code" in judge:  # of a user's judge, with its own fields
        return record.get("request", {}).get("judge")
    kind = judge.get("kind")
    if kind == "longest":
        return kind
    if kind not in ("openai", "hf") or not NAME.fullmatch(f"{'openai:' * (kind == 'openai')}{judge['model']}"):
        return None  # a file of judgements, a judge without an argument, or a path or address in place of a name
    words = [f"{kind}:{judge['model']}"]
    words += [f"{key}={judge[key]}" for key in ("revision",) if kind == "openai" and judge.get(key) is not None]
    words += [f"{key}={judge[key]}" for key in ("protocol", "temperature", "max_tokens") if judge.get(key) is not None]
    words += ["trust_remote_code=true"] if judge.get("trust_remote_code") is True else []
    return ",".join(words)


def _device_word(record: Record) -> str | None:
    """The device, if this machine would choose another by default."""
    import torch

    kind = str(record["provenance"].get("device") or "cpu")
    return None if kind.partition(":")[0] == ("cuda" if torch.cuda.is_available() else "cpu") else kind


def _unknown(record: Record, replacements: Replacements) -> Iterator[str]:
    """The facts that only the user can know, each with the option for it."""
    judge = (record["protocol"].get("grader") or {}).get("judge") or {}
    if judge.get("kind") == "replay" and replacements.judge is None:
        yield f"the judgements came from a file (sha256 {judge.get('annotations_sha256', '')[:8]}): --judge replay:FILE"
    if judge.get("kind") == "openai" and replacements.judge is None:
        yield f"the judge's address is not recorded: give it with --judge openai:{judge.get('model')}@URL"
    spec = record["spec"]
    engines = {f"{section}.engine": (spec.get(section) or {}).get("engine") for section in ("rollout", "teacher_text")}
    engines |= {"teacher.engine": (spec.get("teacher_loading") or {}).get("engine")}
    engines |= {"evaluation.engine": record["protocol"].get("engine")}
    for setting, word in engines.items():
        if ":" in str(word):
            yield f"the address of {setting} is not recorded: run it with --set {setting}={word}@URL"
    for role in ("student", "teacher"):
        name = record[role] or ""
        if getattr(replacements, role) is not None:
            continue
        if name.startswith(models.SERVED):
            yield f"the {role} runs on a server: give its address with --{role} {name}@URL"
        elif name and not name.startswith(models.MICRO) and "/" not in name:
            yield f"the {role} {name!r} is a folder: give it with --{role} DIR"
