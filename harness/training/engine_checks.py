"""Refuses engines that a run cannot use, before any work, with what they lack and what to set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness import registry
from harness.errors import BadInput
from harness.launch import processes
from harness.method import Method, ReferencePoint
from harness.models import devices, engine_choice, files, loading, vllm_server
from harness.models.engine_choice import OPENAI, VLLM, EngineChoice
from harness.models.files import ModelFiles
from harness.models.pair import Pair
from harness.recipe import Evaluation, Recipe
from harness.training import job
from harness.training.several_teachers import Teaching
from harness.types import Source

if TYPE_CHECKING:
    from harness.models.chat_format import TextCodec

Use = tuple[str, EngineChoice, str]  # a setting, the engine that it names, and the model to serve
SPARE = 8  # at most this many tokens beyond k, to replace those of a padded vocabulary that the student lacks


def check(chosen: Recipe, methods: Sequence[Method], pair: Pair, device: str, *, reach: bool = True) -> None:
    """Raises BadInput if an engine of the recipe is missing or cannot serve one of ``methods``.

    ``reach=False`` checks only the settings: no server is contacted, and vLLM need not be installed.
    """
    trained = [method for method in methods if not isinstance(method, ReferencePoint)]
    _rollout(chosen, trained, pair, device, reach)
    _teacher(chosen, trained, pair, device, reach)
    measured = _evaluation(chosen, methods, pair, device, reach)
    _one_model_each([*_uses(chosen, trained), *measured])


def further(
    chosen: Recipe, methods: Sequence[Method], teachers: Sequence[Teaching], device: str, *, reach: bool
) -> None:
    """Raises BadInput if the engine of a further teacher, in ``teachers[1:]``, cannot serve it."""
    trained = [method for method in methods if not isinstance(method, ReferencePoint)]
    uses, reading = _uses(chosen, trained), bool(_reading(trained))
    for one in teachers[1:]:
        own, where = loading.engine_of(one.loaded), f"teachers.{one.name}.engine"
        if own is None:
            continue
        _can_be_served(chosen, trained, f"{where}={own.word}")
        uses.append((where, own, f"the teacher {one.name}"))
        dtype = one.loaded.dtype or chosen.training.precision
        _check_engine(own, where, device, one.files, chosen.training.max_tokens, dtype, reach)
        _of_a_teacher(own, where, one.loaded.dtype, reading)
        if reading and reach and not own.managed:
            _gives(own, where, one.files, codec_of(one.files).words, chosen.training.top_k)
    _one_model_each(uses)


def engines_in_words(chosen: Recipe, methods: Sequence[Method]) -> list[str]:
    """Lines for the user on the role of each engine of the recipe; empty if it names none."""
    trained = [method for method in methods if not isinstance(method, ReferencePoint)]
    texts = set().union(*(job.sources_of(method, chosen.training) for method in trained))
    every = chosen.rollout.sync_every
    steps = "every optimizer step" if every == 1 else f"every {every} optimizer steps"
    parts = [
        (Source.STUDENT in texts, chosen.rollout.engine, "rollout.engine", f"samples the student, updated {steps}"),
        (bool(trained), chosen.teacher.engine, "teacher.engine", "runs the teacher"),
        (Source.TEACHER in texts, chosen.teacher_text.engine, "teacher_text.engine", "writes the teacher's texts"),
        (True, chosen.evaluation.engine, "evaluation.engine", "answers the tasks"),
    ]
    lines = []
    for used, word, where, does in parts:
        choice = engine_choice.chosen(word or engine_choice.IN_PROCESS, where)
        if used and choice is not None:
            lines.append(f"the engine {engine_choice.described(choice, where)} {does}")
    return lines


def share(chosen: Recipe) -> float:
    """The share of the run's GPU used by servers of the harness next to the training."""
    words = {"rollout": chosen.rollout.engine, "teacher": chosen.teacher.engine}
    choices = [engine_choice.chosen(word or engine_choice.IN_PROCESS, f"{key}.engine") for key, word in words.items()]
    return sum(one.vllm.memory for one in choices if one and one.managed and not (one.vllm.gpus or one.vllm.sleep))


def _rollout(chosen: Recipe, trained: Sequence[Method], pair: Pair, device: str, reach: bool) -> None:
    rollout = chosen.rollout
    choice = engine_choice.chosen(rollout.engine, "rollout.engine")
    if choice is None:
        for name in ("sync_every", "importance_cap"):
            if getattr(rollout, name) not in (None, 1):
                raise BadInput(
                    f"rollout.{name}={getattr(rollout, name)} belongs to an engine; set rollout.engine, or remove it"
                )
        return
    sampling = [m for m in trained if Source.STUDENT in job.sources_of(m, chosen.training)]
    for method in trained:
        if method.needs.joint:
            raise BadInput(
                f"method {method.name} samples student and teacher together, token by token: rollout.engine must be "
                f"{engine_choice.IN_PROCESS}"
            )
    if not sampling:
        return
    if choice.kind == OPENAI:
        raise BadInput(
            f"rollout.engine={choice.word}: an OpenAI-compatible server cannot be given the student's new weights; set "
            "rollout.engine=vllm, or vllm:NAME@URL,weights=FOLDER"
        )
    if not choice.managed and choice.server.weights is None:
        raise BadInput(
            f"rollout.engine={choice.word}: name the folder through which the server gets the student's weights, that "
            "both can read: ,weights=FOLDER"
        )
    longest = chosen.training.max_tokens
    _check_engine(choice, "rollout.engine", device, pair.student, longest, chosen.training.precision, reach, read=False)


def _teacher(chosen: Recipe, trained: Sequence[Method], pair: Pair, device: str, reach: bool) -> None:
    """The engines of the teacher: of its texts, and of its signal."""
    own = loading.engine_of(chosen.teacher)
    texts = engine_choice.chosen(chosen.teacher_text.engine or engine_choice.IN_PROCESS, "teacher_text.engine")
    writing = [m for m in trained if Source.TEACHER in job.sources_of(m, chosen.training)]
    reading = _reading(trained)
    if own is not None:
        _can_be_served(chosen, trained, f"teacher.engine={chosen.teacher.engine}")
    if pair.teacher is None or not (writing or reading):
        return
    precision, longest = chosen.teacher.dtype or chosen.training.precision, chosen.training.max_tokens
    if texts is not None and writing and not texts.managed and chosen.teachers:
        raise BadInput(
            f"teacher_text.engine={texts.word} is the server of one teacher, and there are several: give each its own, "
            "as engine of [teachers.NAME]"
        )
    if texts is not None and writing:
        _check_engine(texts, "teacher_text.engine", device, pair.teacher, longest, precision, reach)
        _of_a_teacher(texts, "teacher_text.engine", None, False)
    if own is not None:
        _check_engine(own, "teacher.engine", device, pair.teacher, longest, precision, reach)
        _of_a_teacher(own, "teacher.engine", chosen.teacher.dtype, bool(reading))
        if reading and reach and not own.managed:
            words = pair.words or codec_of(pair.teacher).words
            _gives(own, "teacher.engine", pair.teacher, words, chosen.training.top_k)


def _of_a_teacher(choice: EngineChoice, where: str, dtype: str | None, reading: bool) -> None:
    """Raises BadInput for unsupported settings of a teacher's server."""
    if choice.managed:
        return
    if choice.server.weights is not None:
        raise BadInput(f"{where}={choice.word}: a teacher's server keeps its own weights; remove weights=")
    if dtype is not None:
        raise BadInput(
            f"teacher.dtype={dtype}: the server of {where}={choice.word} decides the type of its weights; leave the "
            "setting out"
        )
    if reading and choice.kind == OPENAI:
        raise BadInput(
            f"{where}={choice.word}: only vLLM returns log-probabilities of given tokens; write {VLLM}:NAME@URL if "
            "it is one, or choose a method that only reads the teacher's texts"
        )


def _evaluation(chosen: Recipe, methods: Sequence[Method], pair: Pair, device: str, reach: bool) -> list[Use]:
    """The role of ``evaluation.engine``. Raises BadInput if it cannot answer for an evaluated model."""
    choice = engine_choice.chosen(chosen.evaluation.engine, "evaluation.engine")
    if choice is None:
        return []
    points = {method.evaluates for method in methods if isinstance(method, ReferencePoint)}
    trains = any(not isinstance(method, ReferencePoint) for method in methods)
    if trains and not choice.takes_weights:
        raise BadInput(
            f"evaluation.engine={choice.word}: a running server cannot be given the trained student; set "
            "evaluation.engine=vllm, or vllm:NAME@URL,weights=FOLDER that both can read"
        )
    if not choice.managed and chosen.evaluation.dtype != Evaluation.dtype:
        raise BadInput(
            f"evaluation.dtype={chosen.evaluation.dtype}: the server of evaluation.engine={choice.word} decides the "
            "type of its weights; leave the setting out"
        )
    measured = {"the student": pair.student} if trains or "student" in points else {}
    if "teacher" in points and pair.teacher is not None:
        measured["the teacher"] = pair.teacher
    files = {what: model for what, model in measured.items() if model.url is None}
    if not files:
        raise BadInput(
            f"evaluation.engine={choice.word}: {pair.student.id} already runs on a server, which answers; remove it"
        )
    for what, model in files.items():
        read = choice.takes_weights and (what != "the student" or "student" in points)
        _check_engine(
            choice, "evaluation.engine", device, model, chosen.evaluation.max_new_tokens or 0, None, reach, read
        )
    uses = [("evaluation.engine", choice, what) for what in files]
    return uses[:1] if choice.takes_weights else uses  # a server that gets weights serves one model after the other


def _uses(chosen: Recipe, trained: Sequence[Method]) -> list[Use]:
    """The engines of a training."""
    words = {
        "rollout.engine": (chosen.rollout.engine, "the student"),
        "teacher.engine": (chosen.teacher.engine, "the teacher"),
        "teacher_text.engine": (chosen.teacher_text.engine, "the teacher"),
    }
    choices = {
        where: engine_choice.chosen(word or engine_choice.IN_PROCESS, where) for where, (word, _) in words.items()
    }
    return [(where, choice, words[where][1]) for where, choice in choices.items() if choice is not None and trained]


def _one_model_each(uses: Sequence[Use]) -> None:
    """Raises BadInput if one running server would have to serve two models."""
    first_use: dict[tuple[str, str], tuple[str, str]] = {}
    for where, choice, model in uses:
        if choice.url is None:
            continue
        first, other = first_use.setdefault((choice.url.rstrip("/"), choice.name), (where, model))
        if other != model:
            own = "evaluate them in separate commands" if first == where else f"give {model} a server of its own"
            raise BadInput(
                f"{where}={choice.word}: {other} ({first}) and {model} would share one running server; {own}"
            )


def _reading(trained: Sequence[Method]) -> list[Method]:
    """The methods that read the teacher's distribution."""
    asks = [m for m in trained if m.needs.teacher == "signal"]
    return [m for m in asks if m.needs.asking is None or m.needs.asking.model == "teacher"]


def _can_be_served(chosen: Recipe, trained: Sequence[Method], setting: str) -> None:
    """Raises BadInput for uses that a teacher with only texts and likeliest tokens does not support.

    ``setting`` is the setting that puts it on a server.
    """
    for method in trained:
        if method.needs.joint or method.needs.proposals:
            raise BadInput(
                f"method {method.name} works inside the teacher, token by token, but {setting} is on a server; "
                "remove the engine to load it in this process"
            )
    if chosen.training.divergence_every is not None:
        raise BadInput(
            f"training.divergence_every measures against the teacher's whole distribution, but {setting} gives "
            "only likeliest tokens; remove one of them"
        )
    reading = _reading(trained)
    if reading and not registry.find(registry.SIGNALS, chosen.training.signal).served:
        raise BadInput(
            f"method {reading[0].name} reads training.signal={chosen.training.signal}, but {setting} gives only "
            "likeliest tokens; set training.signal=top-k"
        )


def spare(teacher: ModelFiles, vocab: int) -> int:
    """Tokens to request beyond k: as many as the teacher's embedding may have that the student lacks."""
    rows = max(files.declared(teacher, "vocab_size"), default=vocab)
    return min(SPARE, max(0, rows - vocab))


def _check_engine(
    choice: EngineChoice,
    where: str,
    device: str,
    model: ModelFiles,
    tokens: int,
    dtype: str | None,
    reach: bool,
    read: bool | None = None,
) -> None:
    """Raises BadInput if vLLM is not installed or lacks a dtype, or the running server is not the requested one.

    ``read``: the server reads the files of ``model``; None: if the harness starts it.
    """
    if (choice.managed if read is None else read) and (model.adapter is not None or model.gguf is not None):
        what = "an adapter" if model.adapter is not None else "a GGUF file"
        raise BadInput(
            f"{where}={choice.word}: vLLM needs whole models, and {model.id} is {what}; save it merged first"
        )
    if choice.managed:
        for_gpus = [name for name in ("gpus", "sleep") if device == "cpu" and getattr(choice.vllm, name)]
        if for_gpus and reach:  # a plan that is only printed may be for another machine
            raise BadInput(f"{where}: {for_gpus[0]} of vllm is for a GPU, and the run is on {device}; remove it")
        dtype = choice.vllm.dtype or dtype
        if reach:
            engine_choice.version(where)
        if processes.on_this_machine() != processes.how_many():
            raise BadInput(
                f"{where}: a server that the harness starts is reached from its own machine alone; for several "
                "machines start one and name it, vllm:NAME@URL (docs/scale-out.md)"
            )
        if device == "cpu":
            vllm_server.check_form(model.path, model.id, where)
        if dtype is not None:
            devices.check_type(dtype, device, f"{where}, dtype")
        return
    if not reach:
        return
    from harness.models.engines import running
    from harness.models.remote_engine import check as check_server

    check_server(running(choice).client, codec_of(model), tokens, where)


def codec_of(model: ModelFiles) -> TextCodec:
    codec = files.text_codec(model)
    assert codec is not None, "a model behind an engine has files of its own"
    return codec


def _gives(own: EngineChoice, where: str, teacher: ModelFiles, words: int, k: int) -> None:
    """Raises BadInput where a running server gives fewer log-probabilities than ``k``, of ``words`` shared tokens."""
    from harness.errors import RunFailed
    from harness.models.engines import running
    from harness.models.remote_engine import RemoteEngine

    codec, needed = codec_of(teacher), min(k, words) + spare(teacher, words)
    try:
        RemoteEngine(running(own), codec.tokenizer, (), None).scored([[codec.end_id, codec.end_id]], needed)
    except RunFailed as error:
        raise BadInput(
            f"{where}={own.word} does not give the {needed} likeliest tokens that training.top_k={k} needs: "
            f"{error}; lower it, or start the server with --max-logprobs {needed}"
        ) from None
