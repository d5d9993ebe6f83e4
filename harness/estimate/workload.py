"""Turns a method and a recipe into the workload that :mod:`harness.estimate.resources` estimates."""

from __future__ import annotations

from harness.estimate.resources import Work
from harness.estimate.shapes import Shape
from harness.method import Method, Step, texts_of
from harness.models import quantization
from harness.recipe import Recipe
from harness.training.teacher_prompt import teaches_itself
from harness.types import Source

DRAWS = 20  # evenly spaced steps and draws at which the sources of a method are sampled


def work(
    method: Method,
    recipe: Recipe,
    student: Shape,
    teacher: Shape | None,
    prompts: int,
    lengths: tuple[int, int],
    processes: int = 1,
    sharded: bool = False,
    trained: int | None = None,
    teacher_weight: float | None = None,
    teacher_apart: bool = False,
) -> Work:
    """``teacher``: the recipe's, if it has one; a method without a teacher leaves it out, a student that teaches itself
    stands in its place. ``prompts``: those that a teacher would answer. ``lengths``: of a
    prompt and a response, in tokens. ``trained``: the parameters of the student's adapter, if it has one.
    ``teacher_weight``: bytes of a weight of a checkpoint that comes quantised. ``teacher_apart``: the teacher has a
    device of its own.
    """
    plan = recipe.training
    sources, own = mixture(method, plan.steps)
    if teaches_itself(method):
        # A frozen or moving copy is held beside the student; the student itself, read as it stands, needs no memory.
        live = method.needs.asking is not None and method.needs.asking.model == "live"
        teacher, teacher_weight, teacher_apart = student, None, live
    elif not asks_teacher(method):
        teacher = None
    return Work(
        student=student,
        teacher=teacher,
        steps=plan.steps,
        batch=plan.batch,
        micro_batch=plan.micro_batch,
        prompt_tokens=lengths[0],
        response_tokens=lengths[1],
        precision=plan.precision,
        on_policy=own,
        teacher_texts=prompts if Source.TEACHER in texts_of(method, plan.steps) else 0,
        signal=method.needs.teacher == "signal",
        sources=sources,
        generation_batch=recipe.evaluation.batch,
        processes=processes,
        sharded=sharded,
        trained=trained,
        checkpointed=plan.gradient_checkpointing,
        optimizer=plan.optimizer,
        master_weights=plan.master_weights,
        micro_tokens=plan.micro_tokens,
        teacher_type=recipe.teacher.dtype,
        teacher_weight=quantization.bytes_of(kind) if (kind := recipe.teacher.quantization) else teacher_weight,
        teacher_apart=teacher_apart,
        sampled_in=recipe.rollout.dtype,
    )


def asks_teacher(method: Method) -> bool:
    return method.needs.teacher != "none" or method.needs.proposals


def mixture(method: Method, steps: int) -> tuple[int, float]:
    """The largest number of sequences per prompt, and the share of sequences that the student samples."""
    total = max(steps, 1)
    places = [((i * (total - 1)) // (DRAWS - 1), (j + 0.5) / DRAWS) for i in range(DRAWS) for j in range(DRAWS)]
    drawn = [method.sources(Step(index, total, draw)) for index, draw in places]
    own = sum(source not in (Source.DATA, Source.TEACHER) for sources in drawn for source in sources)
    return max(map(len, drawn)), own / max(sum(map(len, drawn)), 1)
