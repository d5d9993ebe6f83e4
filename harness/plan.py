"""Turns a request into a plan, and checks everything before any work begins.

The plan is pure data (:class:`harness.request.Plan`).
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from harness import error_location, method_probe, method_settings, options, recipe, registry, specification, user_code
from harness.errors import BadInput, unknown
from harness.evaluation import benchmarks, cards
from harness.method import Method, ReferencePoint
from harness.models import adapters, devices, engine_choice, loading
from harness.models import files as models
from harness.models.files import ModelFiles
from harness.models.pair import Pair, agree
from harness.recipe import Before, Recipe
from harness.records import curves
from harness.records.store import Store
from harness.request import Plan, RunRequest
from harness.specification import Configured, wants_teacher
from harness.training import engine_checks, job, pools, several_teachers

DEFAULT_RECIPE = "micro"
SHUFFLED = "shuffled"


@error_location.faults_as(BadInput)
def prepare(request: RunRequest) -> Plan:
    """The plan of a request. Raises BadInput for anything that would stop it later."""
    # The recipe, with the settings of the command line.
    named, name = request.recipe is not None, request.recipe or DEFAULT_RECIPE
    request = dataclasses.replace(request, recipe=name)
    chosen, settings = recipe.override(recipe.load(name), request.settings)
    if request.student or request.teacher:
        replaced = {"student": request.student, "teacher": request.teacher}
        changed = dataclasses.replace(chosen.models, **{k: v for k, v in replaced.items() if v})
        chosen = dataclasses.replace(chosen, models=changed)
    # The methods. The probe runs each on a few synthetic tokens, which reveals a broken one before models are loaded.
    names = registry.known_names(registry.METHODS, request.methods)
    names = _with_controls(names) if request.control else names
    configurations = [configured(name, chosen, settings) for name in names]
    _all_used(settings, [method for method, *_ in configurations])
    first = _first(chosen, [method for method, *_ in configurations])
    planned = [*configurations, *([first] if first else [])]
    if not models.is_here(chosen.models.student):  # reported before the imports, if the hub is unreachable
        models.locate(chosen.models.student, chosen.models.trust_remote_code, weights=False, hashed=False)
    for method, *_ in planned:
        method_probe.check(method, chosen.training, chosen.rollout.importance_cap)
    # Everything external: device, trackers, results folder and benchmark files. They are cheap to check, and a run that
    # cannot record its result should not start.
    device = (
        devices.best() if request.device is None else devices.check(request.device, "--device", here=request.weights)
    )
    curves.check_trackers(request.track)
    store = Store(request.results)
    store.check_writable()
    judge = request.judge or chosen.evaluation.judge
    keep = request.results / "work" / "judgements"
    if request.protocol is not None:
        request = dataclasses.replace(request, protocol=cards.protocol_called(request.tasks, request.protocol))
    protocol = request.protocol or chosen.evaluation.protocol
    tasks = benchmarks.open_all(
        registry.known_names(registry.TASKS, request.tasks), chosen.world, judge, keep, protocol
    )

    # The models. A pair is checked by configuration and tokenizer, then the weights are fetched.
    methods = [method for method, *_ in planned]
    trains = not all(isinstance(method, ReferencePoint) for method in methods)
    student, teacher = _locate(chosen, methods, weights=False)
    if not named and trains:
        _meant_for_micro(request)
    devices.check_precision(
        chosen, device, served=[m.id for m in (student, teacher) if m is not None and m.url is not None]
    )
    if student.url is None:
        words = len(models.load_tokenizer(student))
        for method in methods:
            _within_vocabulary(method, chosen, words)
    if trains:  # the student has files: a served one was refused above
        from harness.training import optimizers

        if adapters.wanted(chosen.student):
            adapters.check(student, chosen.student)
        loading.refuse_quantized(student)
        optimizers.check(chosen.training)
    if teacher is not None:
        loading.check(teacher, chosen, device)
    pair = _pair(chosen, methods, student, teacher)
    engine_checks.check(chosen, methods, pair, device, reach=request.engines)
    several, teachers = bool(chosen.teachers or chosen.data.teacher_field), ()
    if several:
        teachers = several_teachers.locate(chosen, methods, pair, (student, teacher), device, weights=False)
        engine_checks.further(chosen, methods, teachers, device, reach=request.engines)
    if request.weights:
        student, teacher = _locate(chosen, methods, weights=True)
        pair = pair.of(student, teacher)
        if several:
            teachers = several_teachers.locate(chosen, methods, pair, (student, teacher), device, weights=True)
    # The data, then one training per (method, seed): its specification hashes everything found above.
    data = pools.read(chosen, methods, pair, tasks)
    template = models.template_hash(pair.student)
    plan = Plan(request, chosen, tasks, [], student, teacher, pair, data, template, store, device, teachers)
    if several:
        pools_by_option = {"data.prompts": data.prompts, "data.labelled": data.labelled}
        several_teachers.check_rows(teachers, pools_by_option, chosen.data.teacher_field)
    for word, (method, variant, origin) in zip(names, configurations, strict=True):
        seeds = dict.fromkeys(request.seeds)
        trainings = [specification.training_of(plan, (method, variant, origin), seed, first) for seed in seeds]
        plan.trainings += [dataclasses.replace(training, word=word) for training in trainings]
    return plan


def configured(name: str, chosen: Recipe, settings: Mapping[str, str]) -> tuple[Method, str | None, str]:
    """The configured method, its variant and its origin. Defaults < variant < recipe < --set."""
    method_class = registry.find(registry.METHODS, registry.split(name)[0])
    values = settings_of(method_class, name)
    known = {field.name for field in dataclasses.fields(method_class.Config)}
    values |= chosen.method.get(method_class.name, {})
    values |= {key: value for key, value in settings.items() if key in known}
    # The ranges of a reconstruction are ours; its paper is not their source.
    source = "" if method_class.reconstruction else method_class.paper
    config = options.build(method_class.Config, values, f"method {method_class.name}", source)
    return method_settings.made(method_class, config), registry.split(name)[2] or None, user_code.identity(method_class)


def settings_of(method_class: type[Method], name: str) -> dict[str, Any]:
    """The settings of the variants in ``name``. Raises BadInput for an unknown variant."""
    bare, at, variant = registry.split(name)
    variants = variants_of(method_class)
    values: dict[str, Any] = {}
    for part in variant.split("+") if at else ():
        if part not in variants:
            raise (
                unknown(f"variant of {bare}", part, variants)
                if variants
                else BadInput(f"method {bare} has no variants, so {name!r} is unknown; use {bare}")
            )
        values |= variants[part]
    return values


def _with_controls(names: Sequence[str]) -> list[str]:
    """Adds after every method that weights tokens its shuffled-weight control."""
    expanded = []
    for name in names:
        bare, at, variant = registry.split(name)
        weighs = SHUFFLED in variants_of(registry.find(registry.METHODS, bare))
        control = f"{bare}@{variant}+{SHUFFLED}" if at else f"{name}@{SHUFFLED}"
        expanded += [name, control] if weighs and SHUFFLED not in variant.split("+") else [name]
    if len(expanded) == len(names):
        raise BadInput(f"--control: {', '.join(names)}: no token weights to shuffle; leave --control out")
    return list(dict.fromkeys(expanded))


def _within_vocabulary(method: Method, chosen: Recipe, words: int) -> None:
    """Raises BadInput if more likeliest tokens are requested than the student's tokenizer has."""
    needs, joint = method.needs, getattr(method.needs.joint, "top_k", 0)
    signal = chosen.training.top_k if chosen.training.signal == "top-k" and needs.teacher == "signal" else 0
    for k, where in ((max(needs.ranks, joint), f"method {method.name}"), (signal, "training.top_k")):
        if k > words:
            raise BadInput(f"{where} looks at the {k} likeliest tokens of a vocabulary of {words}: set at most {words}")


def _all_used(settings: Mapping[str, str], methods: Iterable[Method]) -> None:
    """Raises BadInput for a setting that no method has; a setting of some methods applies to those."""
    known = {f.name for m in methods for f in dataclasses.fields(m.Config)}
    for key in settings:
        if key not in known:
            names = ", ".join(m.name for m in methods)
            raise (
                unknown(f"setting of {names}: --set method", key, known)
                if known
                else BadInput(f"--set method.{key}: {names} takes no settings")
            )


def _meant_for_micro(request: RunRequest) -> None:
    """Raises BadInput if the default recipe, made for the micro models, would train another model."""
    models_named = {"--student": request.student, "--teacher": request.teacher}
    others = [f"{word} {name}" for word, name in models_named.items() if name and not name.startswith(models.MICRO)]
    if others:
        raise BadInput(
            f"{' '.join(others)} without --recipe would train on the micro world's prompts with its learning rate; "
            f"give a recipe of these models (--recipe {DEFAULT_RECIPE} if that is meant)"
        )


def _none_trains(model: ModelFiles, methods: Iterable[Method]) -> None:
    """Raises BadInput for training with a served model, which gives neither weights nor a teacher signal."""
    names = [method.name for method in methods if not isinstance(method, ReferencePoint)]
    if model.url is not None and names:
        fix = "give their folder or hub id, and the server of a teacher as --set teacher.engine=vllm:NAME@URL"
        raise BadInput(
            f"{model.id} runs on a server and can only be evaluated; method {names[0]} needs its files: {fix}"
        )


def variants_of(method_class: type[Method]) -> dict[str, Mapping[str, Any]]:
    """The named settings of a method, and ``shuffled``, the control of every method that weights tokens."""
    method_settings.check(method_class)
    weighs = any(field.name == "shuffle" for field in dataclasses.fields(method_class.Config))
    return dict(method_class.variants) | ({SHUFFLED: {"shuffle": True}} if weighs else {})


def _locate(chosen: Recipe, methods: Sequence[Method], *, weights: bool) -> tuple[ModelFiles, ModelFiles | None]:
    """The student, and the teacher if some method needs it."""
    student = models.locate(chosen.models.student, chosen.models.trust_remote_code, weights=weights)
    _none_trains(student, methods)
    if not any(map(wants_teacher, methods)) and not pools.measures_divergence(chosen, methods):
        return student, None
    # For a teacher on a running server, read only configuration and tokenizer here, unless another server
    # must get its weights.
    engine, answers = (
        loading.engine_of(chosen.teacher),
        engine_choice.chosen(chosen.evaluation.engine, "evaluation.engine"),
    )
    measured = any(isinstance(method, ReferencePoint) and method.evaluates == "teacher" for method in methods)
    receives_weights = measured and answers is not None and answers.takes_weights
    read = engine is None or engine.managed or receives_weights
    teacher = models.locate(chosen.models.teacher, chosen.models.trust_remote_code, weights=weights and read)
    _none_trains(teacher, methods)
    return student, teacher


def _pair(chosen: Recipe, methods: Sequence[Method], student: ModelFiles, teacher: ModelFiles | None) -> Pair:
    """Student and teacher in the format that the recipe chooses.

    A method without a teacher trains in the same format as the others, so that a table has one format.
    """
    if all(isinstance(method, ReferencePoint) for method in methods):
        return Pair(student, teacher)
    read = teacher
    if teacher is None and chosen.models.template == "teacher":
        # Only its tokenizer and template are read, so gigabytes of weights need no hash.
        read = models.locate(chosen.models.teacher, chosen.models.trust_remote_code, weights=False, hashed=False)
    pair = agree(
        student,
        read,
        template=chosen.models.template,
        thinking=chosen.models.thinking,
        same_ids=any(map(_needs_common_ids, methods)) or pools.measures_divergence(chosen, methods),
        elsewhere=_across_tokenizers,
    )
    return pair if teacher is not None else dataclasses.replace(pair, teacher=None)


def judged(chosen: Recipe, methods: Sequence[Method]) -> Pair:
    """The pair of a recipe, checked by configuration and tokenizer without fetching weights. Raises BadInput."""
    with_teacher = any(map(wants_teacher, methods))
    names = (chosen.models.student, chosen.models.teacher if with_teacher else None)
    files = [n and models.locate(n, chosen.models.trust_remote_code, weights=False) for n in names]
    return _pair(chosen, methods, files[0], files[1])


def _needs_common_ids(method: Method) -> bool:
    """Whether student and teacher must map text to the same ids, because both read the same tokens."""
    return job.reads_tokens(method) and method.needs.pairing is None and not job.teaches_itself(method)


def _across_tokenizers() -> list[str]:
    """The registered methods that learn from a teacher of another tokenizer."""
    names = []
    for entry in registry.entries(registry.METHODS):
        with contextlib.suppress(BadInput):  # a plugin that cannot be loaded does not help
            method = configured(entry.name, Recipe("defaults"), {})[0]
            reads = not isinstance(method, ReferencePoint) and wants_teacher(method)
            names += [method.name] if reads and not _needs_common_ids(method) else []
    return names


def _first(chosen: Recipe, methods: Sequence[Method]) -> Configured | None:
    """The method of a first stage; None if there is none."""
    if chosen.before != Before():
        specification.check_before(chosen)
    if chosen.before.method is None or all(isinstance(method, ReferencePoint) for method in methods):
        return None
    first = configured(chosen.before.method, chosen, {})
    specification.check_first(first[0])
    return first


def introduction(plan: Plan) -> list[str]:
    """The lines about the pair, the engines and the data, printed before a run."""
    warned = [f"warning: {warning}" for warning in (*plan.pair.warnings, *plan.data.warnings)]
    about_engines = engine_checks.engines_in_words(plan.recipe, [training.method for training in plan.trainings])
    return [*warned, *plan.pair.notes, *about_engines, *pools.summary(plan.data, models.text_codec(plan.pair.student))]
