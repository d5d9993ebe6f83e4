"""What a reproduction would take, before anything is downloaded: runs, tokens, operations, hours, memory, disk.

Orders of magnitude from the assumptions that the paper's file states: 6 operations a parameter and token to train, 2
for a forward pass or a sampled token; 16 bytes a parameter to train with AdamW in float32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from harness import recipe
from harness.method import Method, ReferencePoint, Step, texts_of
from harness.papers.blueprint import Fact, Pair
from harness.papers.budget import parameters
from harness.papers.reproduce import COMPUTE, STEPS, Outcome, Piece, Wish, pieces
from harness.plan import configured
from harness.recipe import Recipe
from harness.types import Source

TRAIN_BYTES = 16  # a parameter: weights, gradient and two AdamW moments in float32
ACTIVATION_BYTES = 34  # a token, layer and unit of width, in 16 bits, without recomputation (arXiv 2205.05198)
CHECKPOINT_BYTES = 12  # a parameter: weights and moments
RULES = (
    "operations: 6 a parameter and token to train, 2 for a forward pass or a sampled token; attention left out",
    "memory: 16 bytes a parameter for AdamW in float32, 34 bytes a token, layer and unit of width for activations, "
    "and about 0.7 GB for libraries and the logits of one chunk",
    "disk: 2 bytes a parameter downloaded, 4 a parameter of every trained student, 12 while one trains",
)


@dataclass(frozen=True)
class Stage:
    """One kind of work of a piece, over all its seeds. ``memory_bytes`` is the peak of one process."""

    stage: str
    tokens: float
    flops: float
    hours: float  # of one device at the stated speed
    memory_bytes: float


@dataclass(frozen=True)
class Estimate:
    """What one piece would take."""

    view: str
    arm: str
    recipe: str
    cells: tuple[str, ...]
    seeds: tuple[int, ...]
    trainings: int
    evaluations: int
    stages: tuple[Stage, ...]
    downloads: dict[str, float]  # bytes, by what is fetched unless it is there
    disk_bytes: float  # of the trained students, and of one checkpoint while training
    assumed: tuple[str, ...]


def estimates(outcome: Outcome) -> list[Estimate]:
    """One estimate a piece; the equal-compute arms of a question count as much as its target."""
    wish, found = outcome.wish, []
    for piece in pieces(outcome.blueprint, wish, outcome.paper):
        found.append(_estimate(piece, outcome, wish))
    question = outcome.blueprint.question
    if wish.scale == "micro" and COMPUTE in wish.views:
        target = next(e for e in found if e.arm == question.target)
        for each in [e for e in found if e.arm in question.baselines]:
            words = ("steps: as many as the target's cost buys, known once the base runs are measured",)
            found.append(Estimate(**{**vars(target), "view": COMPUTE, "arm": each.arm, "assumed": words}))
    return found


def _estimate(piece: Piece, outcome: Outcome, wish: Wish) -> Estimate:
    if isinstance(piece.recipe, Pair):
        chosen, facts = piece.recipe.recipe(), dict(piece.recipe.facts.get("estimate", {}))
        assumed = [
            f"{part}.{key} = {fact.value!r} ({fact.source})"
            for part, inner in piece.recipe.facts.items()
            for key, fact in inner.items()
            if fact.assumed
        ]
    else:
        chosen, facts = recipe.load(piece.recipe), dict(outcome.blueprint.question.estimate)
        assumed = [f"estimate.{key} = {fact.value!r} ({fact.source})" for key, fact in facts.items() if fact.assumed]
    chosen, settings = recipe.override(chosen, piece.settings)
    method, *_ = configured(piece.method, chosen, settings)
    for side in ("student", "teacher"):
        key = f"{side}_parameters"
        if key not in facts:
            facts[key] = Fact(parameters(getattr(chosen.models, side)), "counted in the model's files")
    untrained = isinstance(method, ReferencePoint)
    trainings = 0 if untrained else len(piece.seeds)
    stages = [] if untrained else list(_training(method, chosen, facts, len(piece.seeds)))
    stages.append(_evaluation(piece.tasks.values(), chosen, facts, len(piece.seeds), _evaluated(method)))
    student = facts["student_parameters"].value
    return Estimate(
        piece.view,
        piece.arm,
        chosen.name,
        tuple(piece.tasks),
        piece.seeds,
        trainings,
        len(piece.seeds) * len(piece.tasks),
        tuple(stages),
        {m: 2 * n for m, n in _fetched(chosen, facts)},
        4 * student * trainings + (CHECKPOINT_BYTES * student if trainings else 0),
        tuple(dict.fromkeys(assumed)),
    )


def _training(method: Method, chosen: Recipe, facts: Mapping[str, Fact], seeds: int) -> Iterator[Stage]:
    value = {key: fact.value for key, fact in facts.items()}
    steps, batch = chosen.training.steps, chosen.training.batch
    limit = chosen.training.max_tokens
    prompt, response = value["prompt_tokens"], min(value["response_tokens"], limit)
    student, teacher, speed = value["student_parameters"], value["teacher_parameters"], value["flops_per_second"]
    slow, fast = speed * value["generation_utilisation"], speed * value["training_utilisation"]
    width = 2 if chosen.training.precision == "bfloat16" else 4
    shares = _shares(method, steps)
    both = TRAIN_BYTES * student + (width * teacher if method.needs.teacher == "signal" else 0)

    def stage(name: str, tokens: float, parameters: float, each: int, rate: float, memory: float) -> Stage:
        operations = each * parameters * tokens
        return Stage(name, tokens, operations, operations / rate / 3600, memory)

    if Source.TEACHER in texts_of(method, steps):
        prompts = min(value["prompts"], chosen.data.limit or value["prompts"])
        tokens = prompts * response  # once for all methods and seeds that share teacher, prompts and decoding
        yield stage("teacher texts (shared)", tokens, teacher, 2, slow, width * teacher)
    if shares[Source.STUDENT]:
        tokens = seeds * steps * batch * shares[Source.STUDENT] * response
        yield stage("student rollouts", tokens, student, 2, slow, both)
    tokens = seeds * steps * batch * sum(shares.values()) * (prompt + response)
    if method.needs.teacher == "signal":
        yield stage("teacher forward", tokens, teacher, 2, fast, both)
    held = chosen.training.micro_batch * min(prompt + response, limit) * value["hidden"] * value["layers"]
    yield stage("student training", tokens, student, 6, fast, both + ACTIVATION_BYTES * held)


def _shares(method: Method, steps: int) -> dict[Source, float]:
    """How many sequences a prompt gives from each source, on average over steps and draws."""
    counts = dict.fromkeys(Source, 0.0)
    places = [(i * max(steps - 1, 0) // 19, (j + 0.5) / 20) for i in range(20) for j in range(20)]
    for index, draw in places:
        for source in method.sources(Step(index, max(steps, 1), draw)):
            counts[source] += 1 / len(places)
    return counts


def _evaluated(method: Method) -> str:
    teacher = isinstance(method, ReferencePoint) and method.evaluates == "teacher"
    return "teacher_parameters" if teacher else "student_parameters"


def _evaluation(tasks: Sequence[str], chosen: Recipe, facts: Mapping[str, Fact], seeds: int, model: str) -> Stage:
    from harness.evaluation.benchmarks import locate

    tokens = 0.0
    for name in tasks:
        found, world = locate(name, chosen.world)
        n = found.dataset.n if world == "real" else 150
        samples = chosen.evaluation.samples or found.decoding.samples
        tokens += min(n, chosen.evaluation.limit or n) * samples * facts["answer_tokens"].value * seeds
    size, rate = facts[model].value, facts["flops_per_second"].value * facts["generation_utilisation"].value
    return Stage("evaluation", tokens, 2 * size * tokens, 2 * size * tokens / rate / 3600, 4 * size)


def _fetched(chosen: Recipe, facts: Mapping[str, Fact]) -> Iterator[tuple[str, float]]:
    for side in ("student", "teacher"):
        name = getattr(chosen.models, side)
        if name.count("/") == 1 and not name.startswith((".", "/", "~")):
            yield name, facts[f"{side}_parameters"].value


def as_json(found: Sequence[Estimate]) -> dict[str, Any]:
    return {"kind": "estimate", "totals": totals(found), "pieces": [asdict(e) for e in found], "rules": list(RULES)}


def totals(found: Sequence[Estimate]) -> dict[str, float]:
    """Sums over all pieces; shared teacher texts and downloads count once."""
    shared = {(e.recipe, s.stage): s for e in found for s in e.stages if s.stage.endswith("(shared)")}
    stages = [s for e in found for s in e.stages if not s.stage.endswith("(shared)")] + list(shared.values())
    downloads = {name: size for e in found for name, size in e.downloads.items()}
    return {
        "trainings": sum(e.trainings for e in found),
        "evaluations": sum(e.evaluations for e in found),
        "tokens": sum(s.tokens for s in stages),
        "flops": sum(s.flops for s in stages),
        "device_hours": sum(s.hours for s in stages),
        "peak_memory_bytes": max((s.memory_bytes for s in stages), default=0),
        "download_bytes": sum(downloads.values()),
        "disk_bytes": sum(downloads.values()) + sum(e.disk_bytes for e in found),
    }


def text(found: Sequence[Estimate]) -> str:
    """The estimate for people."""
    sums, lines = totals(found), []
    for each in found:
        view = {STEPS: ", equal steps", COMPUTE: ", equal compute"}.get(each.view, "")
        lines.append(
            f"{each.arm} (recipe {each.recipe}{view}): {each.trainings} trainings, {each.evaluations} evaluations of "
            f"{', '.join(each.cells)}; seeds {', '.join(map(str, each.seeds))}"
        )
        lines += [f"  {s.stage:<24}{_figures(s)}" for s in each.stages]
        lines += [f"  download {name} ~{size / 1e9:.1f} GB unless it is there" for name, size in each.downloads.items()]
    for name in dict.fromkeys(e.recipe for e in found):
        lines += ["", f"assumed for recipe {name}:"]
        lines += [f"  {word}" for word in dict.fromkeys(w for e in found if e.recipe == name for w in e.assumed)]
    lines += [
        "",
        f"in all: {sums['trainings']} trainings, {sums['evaluations']} evaluations; {sums['tokens']:.3g} tokens, "
        f"{sums['flops']:.3g} FLOPs, about {sums['device_hours']:.3g} device-hours, "
        f"{_bytes(sums['peak_memory_bytes'])} of memory; {_bytes(sums['download_bytes'])} to download, "
        f"{_bytes(sums['disk_bytes'])} of disk",
        *(f"  {rule}" for rule in RULES),
        "  what is recorded already is not run again; nothing was run or downloaded now",
    ]
    return "\n".join(lines)


def _figures(s: Stage) -> str:
    return f"{s.tokens:>9.3g} tokens {s.flops:>9.3g} FLOPs {s.hours:>9.3g} h {_bytes(s.memory_bytes):>9}"


def _bytes(value: float) -> str:
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e3:.3g} kB"
