"""Checks before any work whether a plan fits the machine; if not, says which setting to lower.

The arithmetic is in :mod:`harness.estimate.resources`; this module turns a plan (method, recipe, models) and a machine
into its input.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import BadInput
from harness.estimate import shapes
from harness.estimate.resources import DEVICES, Device, Estimate, Work, estimate, excess
from harness.estimate.shapes import Shape, Unknown, shape_of
from harness.launch import processes
from harness.method import Method, ReferencePoint, Step, texts_of
from harness.models import adapters, loading
from harness.models.files import load_tokenizer
from harness.recipe import Recipe
from harness.training import engine_checks, job
from harness.types import Source

if TYPE_CHECKING:
    from harness.request import Plan


DRAWS = 20  # evenly spaced steps and draws at which the sources of a method are sampled
SHORTEST_STEP = 4  # tokens of a line, sentence or statement; assumed, to be on the safe side
TOKEN_BYTES = 40  # of an id and its log-probability in Python's lists
TEMPLATE_TOKENS = 32  # tokens that a chat template adds to a prompt; assumed


def check(plan: Plan, announce: Callable[[str], None]) -> None:
    """Raises BadInput for a plan that cannot fit: more processes than devices, or a batch beyond the memory."""
    _check_processes(plan, announce)
    device = device_of(plan.device)
    if plan.device.startswith("cuda"):
        device = replace(device, memory=device.memory * max(1 - engine_checks.share(plan.recipe), 0.01))
    seen = set()
    for training in plan.trainings:
        if isinstance(training.method, ReferencePoint) or training.label in seen:
            continue
        seen.add(training.label)
        _check_proposals(plan, training.method)
        try:
            overrun = excess(work_of(plan, training.method), device.memory)
        except Unknown as unknown:
            announce(f"warning: {unknown}")
            return
        if overrun is not None:
            over, fix = overrun
            need = (device.memory + over) / 1e9
            raise BadInput(
                f"{training.label} needs about {need:.1f} GB and {device.name} has {device.memory / 1e9:.1f} GB, "
                f"{over / 1e9:.1f} GB too little; {fix}"
            )


def estimates(plan: Plan) -> dict[str, Estimate]:
    """The estimate of every method of a plan, by label; reference points train nothing."""
    device = device_of(plan.device)
    trained = {t.label: t.method for t in plan.trainings if not isinstance(t.method, ReferencePoint)}
    return {label: estimate(work_of(plan, method), device) for label, method in trained.items()}


def describe(needed: Estimate) -> Iterator[str]:
    """An estimate as lines of text."""
    yield f"  memory of one process: about {_bytes(needed.peak)} at its peak"
    yield from (f"    {_bytes(size):>9}  {name}" for name, size in needed.memory.items() if size)
    yield f"  time of one seed: about {_duration(needed.seconds)}"
    yield from (f"    {_duration(seconds):>9}  {name}" for name, seconds in needed.time.items() if seconds)
    yield from (f"  assumed: {line}" for line in needed.assumptions)


def work_of(plan: Plan, method: Method) -> Work:
    """The workload of training ``method`` under a plan."""
    recipe = plan.recipe_of(method)
    texts = job.sources_of(method, recipe.training)
    prompt, answer = _longest(plan, texts)
    prompt = min(prompt, recipe.training.max_tokens - 1)
    if texts - {Source.DATA}:
        sampled = mixture(method, recipe.training.steps)[1] > 0
        answer = max(answer, recipe.rollout.max_new_tokens if sampled else recipe.teacher_text.max_new_tokens)
    workload = work(
        method,
        recipe,
        shape_of(plan.student),
        shape_of(plan.teacher) if plan.teacher is not None and job.asks_teacher(method) else None,
        min(len(plan.data.prompts), recipe.training.steps * recipe.training.batch),  # those that the steps read
        (prompt, min(answer, recipe.training.max_tokens - prompt)),
        processes=processes.how_many(),
        sharded=processes.sharded(),
        trained=adapters.check(plan.student, recipe.student) if adapters.wanted(recipe.student) else None,
        teacher_weight=None if plan.teacher is None else shapes.bytes_per_weight(plan.teacher),
        teacher_apart=_apart(recipe.teacher.device, plan.device) or recipe.teacher.engine is not None,
    )
    if workload.teacher is None:
        return workload
    # Further teachers, each in its loaded type.
    others = [
        replace(
            workload,
            teacher=shape_of(one.files),
            teacher_type=one.loaded.dtype,
            teacher_weight=loading.bytes_of(kind)
            if (kind := one.loaded.quantization)
            else shapes.bytes_per_weight(one.files),
            teacher_apart=_apart(one.loaded.device, plan.device) or loading.engine_of(one.loaded) is not None,
        ).teacher_bytes
        for one in plan.teachers[1:]
    ]
    if method.needs.reference:  # the student before training, in the precision of the training
        copy = replace(workload, teacher=workload.student, teacher_type=None, teacher_weight=None, teacher_apart=False)
        others.append(copy.teacher_bytes)
    return replace(workload, further_teachers=sum(others))


def _apart(teacher: str | None, run: str) -> bool:
    """Whether the teacher has its own device; ``cuda`` is the first of several."""
    named = [name if ":" in name or name == "cpu" else f"{name}:0" for name in (teacher or run, run)]
    return named[0] != named[1]


def _longest(plan: Plan, texts: set[Source]) -> tuple[int, int]:
    """Tokens of the longest prompt and of the longest reference response that a run reads."""
    tokenizer = load_tokenizer(plan.student)
    prompts = [e.prompt for e in (*plan.data.prompts, *plan.data.labelled)]
    longest = max(("".join(turn["content"] for turn in p.turns()) for p in prompts), key=len, default="")
    prompt = len(tokenizer(longest)["input_ids"]) + (TEMPLATE_TOKENS if tokenizer.chat_template else 0)
    answers = [e.response or "" for e in plan.data.labelled] if Source.DATA in texts else []
    return prompt, len(tokenizer(max(answers, key=len, default=""))["input_ids"]) + 1


def device_of(name: str) -> Device:
    """The machine of ``--device``: measured memory, and speed from the data sheet.

    A GPU that is not in this machine is assumed to be an A100-80GB, as in the README's table of recipes.
    """
    if name.startswith("cuda"):
        import torch

        if not torch.cuda.is_available():  # a plan for another machine
            return replace(DEVICES["A100-80GB"], name="A100-80GB (assumed: no CUDA device is visible here)")
        facts = torch.cuda.get_device_properties(torch.device(name))
        known = [d for key, d in DEVICES.items() if key.partition("-")[0] in facts.name.replace(" ", "")]
        return replace(known[0] if known else DEVICES["A100-40GB"], name=facts.name, memory=float(facts.total_memory))
    core = DEVICES["cpu-core"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    kind = "Apple GPU" if name == "mps" else f"this machine ({cores} cores)"
    speed = {"bfloat16": core.bfloat16 * cores, "float32": core.float32 * cores}
    return replace(core, name=kind, memory=float(main_memory()), **speed)


def main_memory() -> int:
    """Bytes that this process may use: the minimum over machine, control group and resource limits."""
    import resource

    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(file).read_text()))
        except (OSError, ValueError):  # no such hierarchy, or "max"
            continue
    of_process = (resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA))
    return min(limits + [limit for limit in of_process if limit != resource.RLIM_INFINITY])


def _check_proposals(plan: Plan, method: Method) -> None:
    """Raises BadInput where the proposals of one optimizer step, kept as token ids and text, exceed the main memory."""
    how, training = job.proposing_of(method), plan.recipe.training
    if how is None:
        return
    answer = max(plan.recipe.rollout.max_new_tokens, plan.recipe.teacher_text.max_new_tokens)
    answer = min(answer, training.max_tokens)
    length = {"token": 1, "span": method.needs.span}.get(method.needs.segment, SHORTEST_STEP)
    step = min(how.longest, length) if method.needs.segment in ("token", "span") else how.longest
    tokens = 2 * how.count * (step + answer)  # each proposal with the prefix that it continues
    if how.validity == "success":
        tokens += 2 * how.count * how.tries * 2 * answer
    elif how.validity == "agreement":
        tokens += how.tries * (step + answer)
    sequences = training.batch * mixture(method, training.steps)[0] / processes.how_many()
    need = sequences * max(answer / length, 1) * tokens * TOKEN_BYTES
    if need > main_memory():
        raise BadInput(
            f"method {method.name}: the proposals of one step need about {need / 1e9:.1f} GB of main memory and there "
            f"are {main_memory() / 1e9:.1f} GB; ask for fewer proposals ({how.count}) or tries ({how.tries}), longer "
            f"steps ({method.needs.segment}), or set training.batch lower"
        )


def _check_processes(plan: Plan, announce: Callable[[str], None]) -> None:
    here, everywhere = processes.on_this_machine(), processes.how_many()
    if plan.device.startswith("cuda"):
        import torch

        devices = torch.cuda.device_count()
        if here > devices:
            raise BadInput(
                f"{here} processes on a machine with {devices} CUDA devices; launch --num_processes {devices}"
            )
    elif here > (cores := len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1):
        announce(f"warning: {here} processes share {cores} cores; they will compete for them")
    trained = [t for t in plan.trainings if not isinstance(t.method, ReferencePoint)]
    if trained and everywhere > plan.recipe.training.batch:
        batch = plan.recipe.training.batch
        raise BadInput(
            f"training.batch={batch} over {everywhere} processes leaves some without a prompt; "
            f"set training.batch to {everywhere} or more, or launch --num_processes {batch}"
        )


def _bytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 0.5 else "< 1 s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


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
    """The workload of a training.

    ``teacher``: the recipe's, if it has one; a method without a teacher ignores it, and a student that teaches itself
    replaces it. ``prompts``: those that a teacher would answer. ``lengths``: of a prompt and a response, in
    tokens. ``trained``: the parameters of the student's adapter, if it has one. ``teacher_weight``: bytes of a weight
    of a quantised checkpoint. ``teacher_apart``: the teacher has its own device.
    """
    training = recipe.training
    sources, own = mixture(method, training.steps)
    if job.teaches_itself(method):
        # A frozen or moving copy needs memory next to the student; a student that reads itself does not.
        live = method.needs.asking is not None and method.needs.asking.model == "live"
        teacher, teacher_weight, teacher_apart = student, None, live
    elif not job.asks_teacher(method):
        teacher = None
    return Work(
        student=student,
        teacher=teacher,
        steps=training.steps,
        batch=training.batch,
        micro_batch=training.micro_batch,
        prompt_tokens=lengths[0],
        response_tokens=lengths[1],
        precision=training.precision,
        on_policy=own,
        teacher_texts=prompts if Source.TEACHER in texts_of(method, training.steps) else 0,
        signal=method.needs.teacher == "signal",
        sources=sources,
        generation_batch=recipe.evaluation.batch,
        processes=processes,
        sharded=sharded,
        trained=trained,
        checkpointed=training.gradient_checkpointing,
        optimizer=training.optimizer,
        master_weights=training.master_weights,
        micro_tokens=training.micro_tokens,
        teacher_type=recipe.teacher.dtype,
        teacher_weight=loading.bytes_of(kind) if (kind := recipe.teacher.quantization) else teacher_weight,
        teacher_apart=teacher_apart,
        sampled_in=recipe.rollout.dtype,
    )


def mixture(method: Method, steps: int) -> tuple[int, float]:
    """The largest number of sequences per prompt, and the share of sequences that the student samples."""
    total = max(steps, 1)
    places = [((i * (total - 1)) // (DRAWS - 1), (j + 0.5) / DRAWS) for i in range(DRAWS) for j in range(DRAWS)]
    drawn = [method.sources(Step(index, total, draw)) for index, draw in places]
    own = sum(source not in (Source.DATA, Source.TEACHER) for sources in drawn for source in sources)
    return max(map(len, drawn)), own / max(sum(map(len, drawn)), 1)
