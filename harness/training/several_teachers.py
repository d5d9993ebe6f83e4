"""Several teachers: each row's own, or all of them mixed by weight.

``[teachers.NAME]`` of a recipe adds teachers to the one of ``models.teacher``, which is called ``teacher.name``. With
``data.teacher_field`` a row names the teacher that answers it and whose distribution it is trained on. Without it every
row has them all, with w_k the weights divided by their sum:

    signal  p(v) = sum_k w_k p_k(v), token by token; a method that needs one distribution gets this one
    text    one teacher a prompt, drawn with chances w_k: p(y) = sum_k w_k p_k(y), sequence by sequence
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
    """One of several teachers: its files in the pair's format, how it is loaded, and its share of the mixture."""

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
    """All teachers of a recipe that has several, the first one included; none where no method asks them.

    Raises BadInput where they do not fit together, or a method can have one only.
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
    found = [Teaching(own.name, pair.of(student, first).teacher or first, own, own.weight)]
    for name, one in chosen.teachers.items():
        if name == own.name:
            raise BadInput(f"[teachers.{name}]: the teacher of models.teacher has this name; set teacher.name")
        if not one.model:
            raise BadInput(f"[teachers.{name}] has no model; set model to a hub id or a folder")
        engine = engine_choice.chosen(one.engine or own.engine or engine_choice.IN_PROCESS, f"teachers.{name}.engine")
        here = engine is None or engine.managed  # of a server that runs already, no weights are read here
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
        other = agree(student, files, template=chosen.models.template, thinking=chosen.models.thinking, same_ids=same)
        asked = (pair.student.format, pair.words)
        if (other.student.format, other.words) != asked:
            raise BadInput(
                f"[teachers.{name}]: {files.id} has another format, or shares other token ids, than {first.id}; "
                "set models.template to student, none or a file, or take teachers of one family"
            )
        limit = chosen.training.max_tokens
        if left_out.room_of(limit, [files]).tokens < left_out.room_of(limit, [student, first]).tokens:
            raise BadInput(
                f"[teachers.{name}]: the context of {files.id} is shorter than that of the other models; set "
                f"training.max_tokens={left_out.room_of(limit, [files]).tokens}"
            )
        found.append(Teaching(name, other.teacher or files, merged, one.weight))
    if not sum(one.weight for one in found) > 0 and chosen.data.teacher_field is None:
        raise BadInput("the weights of the teachers are all 0; set teacher.weight or that of a [teachers.NAME]")
    return tuple(found)


def _can_have_several(method: Method, chosen: Recipe) -> None:
    """Raises BadInput for a method, or a signal that it reads, which has one teacher only."""
    if isinstance(method, ReferencePoint):
        if method.evaluates == "teacher":
            raise BadInput(f"{method.name} is one model and the recipe has several: measure each with --teacher")
        return
    if method.needs.joint or method.needs.proposals:
        raise BadInput(f"method {method.name} samples together with its teacher and can have one only")
    if method.needs.pairing is not None:
        raise BadInput(f"method {method.name} pairs the tokens of two tokenizers and can have one teacher only")
    signal = registry.find(registry.SIGNALS, chosen.training.signal)
    mixed = chosen.data.teacher_field is None  # else each row has one of them, whole
    if method.needs.teacher == "signal" and not signal.exact and (mixed or not signal.served):
        raise BadInput(
            f"signal {signal.name} keeps other tokens of every teacher, so that their mixture is unknown; set "
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
    """Which teacher writes the answer to an example: the same for every method, seed and number of processes."""
    shares = weights_of(teachers, example)
    drawn = random.Random(f"writer/{example.id}/{example.prompt.user}").choices(range(len(shares)), shares)
    return drawn[0]


def named(pools: Sequence[Sequence[Example]]) -> list[list[Any]]:
    """The teacher that each row of each pool names."""
    return [[example.meta.get(FIELD) for example in pool] for pool in pools]


def in_spec(teachers: Sequence[Teaching], field: str | None, rows: str | None) -> dict[str, Any]:
    """The entry of a specification. ``rows`` is the hash of what rows name, given a ``field``."""
    total = sum(one.weight for one in teachers)
    members = [
        {"name": one.name, **one.files.identity(), **loading.in_spec(one.loaded)}
        | ({} if field else {"weight": one.weight / total})
        for one in teachers
    ]
    return {"teachers": {"members": members, "rows": rows}}


def told(teachers: Sequence[Teaching], field: str | None) -> str:
    """In words, for the convention card."""
    total = sum(one.weight for one in teachers)
    if field:
        return f"each row's own ({field}): " + ", ".join(f"{one.name}={one.files.id}" for one in teachers)
    return "mixture of probabilities: " + " + ".join(f"{one.weight / total:g} {one.files.id}" for one in teachers)
