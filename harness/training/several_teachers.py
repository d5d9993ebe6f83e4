"""Several teachers: one per row, or all of them mixed by weight.

``[teachers.NAME]`` of a recipe adds teachers to the one of ``models.teacher``, which is called ``teacher.name``. With
``data.teacher_field`` a row names the teacher that answers it and gives its signal. Without it every row
uses all teachers, with w_k the weights divided by their sum:

    signal  p(v) = sum_k w_k p_k(v), token by token; a method that needs one distribution gets this one
    text    one teacher per prompt, drawn with probability w_k: p(y) = sum_k w_k p_k(y), sequence by sequence
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness import registry
from harness.errors import BadInput, unknown
from harness.method import Method, ReferencePoint
from harness.models import engine_choice, loading
from harness.models import files as models
from harness.models.files import ModelFiles
from harness.models.pair import Pair, agree
from harness.recipe import Recipe, TeacherLoading
from harness.training_data import left_out
from harness.types import Example

FIELD = "teacher"  # of an example's meta: the teacher that its row names


@dataclass(frozen=True)
class Teaching:
    """One of several teachers: its files in the pair's format, its loading, and its share of the mixture."""

    name: str
    files: ModelFiles
    loaded: TeacherLoading
    weight: float


def locate(
    chosen: Recipe,
    methods: Sequence[Method],
    pair: Pair,
    files_of_pair: tuple[ModelFiles, ModelFiles | None],
    device: str,
    *,
    weights: bool,
) -> tuple[Teaching, ...]:
    """All teachers of a recipe with several, including the first; none if no method uses them.

    Raises BadInput if they do not fit together, or a method supports only one.
    """
    student, first = files_of_pair
    if first is None:
        return ()
    if not chosen.teachers:
        raise BadInput("data.teacher_field chooses among several teachers; add the others as [teachers.NAME]")
    for method in methods:
        _can_have_several(method, chosen)
    same = any(method.needs.teacher == "signal" for method in methods)
    own = chosen.teacher
    teachings = [Teaching(own.name, pair.of(student, first).teacher or first, own, own.weight)]
    for name, one in chosen.teachers.items():
        files, merged = _opened(name, chosen, device, weights)
        # Every teacher must read and write what the first one does: one format, one vocabulary, no shorter context.
        other = agree(student, files, template=chosen.models.template, thinking=chosen.models.thinking, same_ids=same)
        expected = (pair.student.format, pair.words)
        if (other.student.format, other.words) != expected:
            raise BadInput(
                f"[teachers.{name}]: {files.id} has another format, or shares other token ids, than {first.id}; "
                "set models.template to student, none or a file, or use teachers of one family"
            )
        limit = chosen.training.max_tokens
        if left_out.room_of(limit, [files]).tokens < left_out.room_of(limit, [student, first]).tokens:
            raise BadInput(
                f"[teachers.{name}]: the context of {files.id} is shorter than that of the other models; set "
                f"training.max_tokens={left_out.room_of(limit, [files]).tokens}"
            )
        teachings.append(Teaching(name, other.teacher or files, merged, one.weight))
    if not sum(one.weight for one in teachings) > 0 and chosen.data.teacher_field is None:
        raise BadInput("the weights of the teachers are all 0; set teacher.weight or that of a [teachers.NAME]")
    return tuple(teachings)


def _opened(name: str, chosen: Recipe, device: str, weights: bool) -> tuple[ModelFiles, TeacherLoading]:
    """The files of ``[teachers.NAME]``, and how it is loaded: like the first teacher, unless it says otherwise."""
    one, own = chosen.teachers[name], chosen.teacher
    if name == own.name:
        raise BadInput(f"[teachers.{name}]: the teacher of models.teacher has this name; set teacher.name")
    if not one.model:
        raise BadInput(f"[teachers.{name}] has no model; set model to a hub id or a folder")
    engine = engine_choice.chosen(one.engine or own.engine or engine_choice.IN_PROCESS, f"teachers.{name}.engine")
    here = engine is None or engine.managed  # for a running server, no weights are read here
    files = models.locate(one.model, chosen.models.trust_remote_code, weights=weights and here)
    if files.url is not None:
        raise BadInput(
            f"[teachers.{name}]: {files.id} runs on a server: give its folder or hub id as model, and the server "
            "as engine=vllm:NAME@URL"
        )
    merged = dataclasses.replace(
        own,
        dtype=one.dtype or own.dtype,
        device=one.device or own.device,
        quantization=one.quantization or own.quantization,
        engine=one.engine or own.engine,
    )
    loading.check(files, dataclasses.replace(chosen, teacher=merged), device)
    return files, merged


def _can_have_several(method: Method, chosen: Recipe) -> None:
    """Raises BadInput for a method, or its signal, that supports only one teacher."""
    if isinstance(method, ReferencePoint):
        if method.evaluates == "teacher":
            raise BadInput(f"{method.name} is one model, but the recipe has several: evaluate each with --teacher")
        return
    if method.needs.joint or method.needs.proposals:
        raise BadInput(f"method {method.name} samples jointly with its teacher and supports only one")
    if method.needs.pairing is not None:
        raise BadInput(f"method {method.name} pairs the tokens of two tokenizers and supports only one teacher")
    signal = registry.find(registry.SIGNALS, chosen.training.signal)
    mixed = chosen.data.teacher_field is None  # otherwise each row has exactly one of them
    if method.needs.teacher == "signal" and not signal.exact and (mixed or not signal.served):
        raise BadInput(
            f"signal {signal.name} keeps different tokens of each teacher, so their mixture is not defined; set "
            "training.signal=hidden (cached) or live, or give each row its teacher (data.teacher_field)"
        )


def check_rows(teachers: Sequence[Teaching], pools: Mapping[str, Sequence[Example]], field: str | None) -> None:
    """Raises BadInput for a row of ``pools`` (examples by the option that names them) with no teacher of the recipe."""
    names = [one.name for one in teachers]
    for where, pool in pools.items() if teachers and field else ():
        for example in pool:
            named = str(example.meta.get(FIELD, "none"))
            if named not in names:
                raise BadInput(f"{where}: row {example.id} under {field!r}: {unknown('teacher', named, names)}")


def weights_of(teachers: Sequence[Teaching], example: Example) -> list[float]:
    """The share of each teacher in an example's signal; they add up to 1."""
    named = example.meta.get(FIELD)
    if named is not None:
        return [float(one.name == named) for one in teachers]
    total = sum(one.weight for one in teachers)
    return [one.weight / total for one in teachers]


def writer_of(teachers: Sequence[Teaching], example: Example) -> int:
    """The teacher that writes the answer to an example: the same for every method, seed and number of processes."""
    shares = weights_of(teachers, example)
    drawn = random.Random(f"writer/{example.id}/{example.prompt.user}").choices(range(len(shares)), shares)
    return drawn[0]


def named(pools: Sequence[Sequence[Example]]) -> list[list[Any]]:
    """The teacher named by each row of each pool."""
    return [[example.meta.get(FIELD) for example in pool] for pool in pools]


def in_spec(teachers: Sequence[Teaching], field: str | None, rows: str | None) -> dict[str, Any]:
    """The entry of a specification. ``rows`` is the hash of the rows' names, given a ``field``."""
    total = sum(one.weight for one in teachers)
    members = [
        {"name": one.name, **one.files.identity(), **loading.in_spec(one.loaded)}
        | ({} if field else {"weight": one.weight / total})
        for one in teachers
    ]
    return {"teachers": {"members": members, "rows": rows}}


def in_words(teachers: Sequence[Teaching], field: str | None) -> str:
    """In words, for the convention card."""
    total = sum(one.weight for one in teachers)
    if field:
        return f"each row's own ({field}): " + ", ".join(f"{one.name}={one.files.id}" for one in teachers)
    return "mixture of probabilities: " + " + ".join(f"{one.weight / total:g} {one.files.id}" for one in teachers)
