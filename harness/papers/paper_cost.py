"""Estimates a reproduction before any download: runs, tokens, operations, hours, memory, disk.

Shapes, operations, memory and time are those of :mod:`harness.estimate`, on the device that the paper's file assumes.
This module turns them into runs: seeds, cells, evaluations, downloads, disk, and assumed facts. Memory is that of
texts of maximum length; tokens, operations and hours are those of texts of the length that the file expects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from harness import recipe
from harness.errors import BadInput, NotHere
from harness.estimate.memory_check import work
from harness.estimate.resources import (
    ADAPTER_SHARE,
    DEVICES,
    Device,
    StageEstimate,
    Work,
    answering,
    assumptions,
    excess,
    stages_of,
)
from harness.estimate.shapes import Shape, published, shape_of
from harness.leaderboard import COMPUTE, STEPS
from harness.method import Method, ReferencePoint
from harness.models import adapters
from harness.papers.reproduce import Piece, ReproduceRequest, Reproduction, pieces
from harness.papers.spec import Fact, ModelPair
from harness.plan import configured, judged
from harness.recipe import Recipe
from harness.training import job

CHECKPOINT_BYTES = 12  # a parameter: weights and moments
SHARED = " (shared)"  # of texts sampled once for all methods and seeds
RULES = (
    "operations: 2 for each weight that a token is multiplied with, attention over the context on top; a training "
    "pass costs three forward passes",
    "memory: the peak of one process in a stage, its texts as long as they may be; hours: texts as long as expected",
    "disk: 2 bytes a parameter downloaded, 4 a parameter of every trained student, 12 while one trains",
)


@dataclass(frozen=True)
class PaperCost:
    """The cost of one piece, with its stages over all its seeds."""

    view: str
    arm: str
    recipe: str
    device: str
    cells: tuple[str, ...]
    seeds: tuple[int, ...]
    trainings: int
    evaluations: int
    stages: tuple[StageEstimate, ...]
    downloads: dict[str, float]  # bytes, by model that would be fetched if missing
    disk_bytes: float  # of the trained students, and of one checkpoint while training
    excess: str  # by how much it exceeds the device, and the fix; empty if it fits
    assumed: tuple[str, ...]
    pair: str = ""  # what the check by configuration and tokenizer says; empty for reference points


def estimates(outcome: Reproduction, *, judge_pairs: bool = False) -> list[PaperCost]:
    """One estimate a piece; the equal-compute arms of a question count as much as its target.

    ``judge_pairs`` reads configuration and tokenizer of the models, from the hub if need be.

    Raises BadInput for a model of unknown shape.
    """
    request, costs = outcome.request, []
    judge = _Judge() if judge_pairs else None
    for piece in pieces(outcome):
        costs.append(_estimate(piece, outcome, request, judge))
    if outcome.asks and outcome.question.equal_steps and COMPUTE in request.views:
        question = outcome.question
        target = next(e for e in costs if e.arm == question.target)
        for each in [e for e in costs if e.arm in question.baselines]:
            words = ("steps: as many as the target's cost buys, known once the base runs are measured",)
            costs.append(replace(target, view=COMPUTE, arm=each.arm, assumed=words))
    return costs


class _Judge:
    """Checks pairs by configuration and tokenizer, a few megabytes each; tries an unreachable hub only once."""

    def __init__(self):
        self.absent = ""

    def words(self, chosen: Recipe, method: Method) -> str:
        """The choices for the pair, or why it would be refused, or that its files are missing."""
        if isinstance(method, ReferencePoint):
            return ""
        if self.absent and any(map(_on_a_hub, (chosen.models.student, chosen.models.teacher))):
            return self.absent
        try:
            pair = judged(chosen, [method])
        except NotHere as error:
            self.absent = f"not judged: {error}"
            return self.absent
        except BadInput as error:
            return f"would be refused: {error}"
        return "; ".join((*pair.warnings, *pair.notes))


def _estimate(piece: Piece, outcome: Reproduction, request: ReproduceRequest, judge: _Judge | None) -> PaperCost:
    """What a piece takes: its trainings, its evaluations and what they download, on the device of the paper's file."""
    if isinstance(piece.recipe, ModelPair):
        chosen, stated = piece.recipe.recipe(), piece.recipe.facts
    else:
        chosen, stated = recipe.load(piece.recipe), {"estimate": outcome.question.estimate}
    facts = stated["estimate"]
    assumed = [
        f"{part}.{key} = {fact.value!r} ({fact.source})"
        for part, inner in stated.items()
        for key, fact in inner.items()
        if fact.assumed
    ]
    chosen, settings = recipe.override(chosen, piece.settings)
    method, *_ = configured(piece.method, chosen, settings)
    device = DEVICES[facts["device"].value]
    names = {"student": chosen.models.student, "teacher": chosen.models.teacher}
    shapes = {side: _shape(name, facts) for side, name in names.items()}
    untrained = isinstance(method, ReferencePoint)
    trainings, over, stages = 0 if untrained else len(piece.seeds), "", []
    if not untrained:
        usual, longest = _works(method, chosen, shapes, facts)
        stages += _training(usual, longest, device, len(piece.seeds))
        assumed += [f"estimate: {line}" for line in assumptions(longest, device)]
        if device.memory and (overrun := excess(longest, device.memory)):
            over = f"{overrun[0] / 1e9:.1f} GB too little on {device.name}; {overrun[1]}"
    side = "teacher" if untrained and method.evaluates == "teacher" else "student"
    stages.append(_evaluation(piece.tasks.values(), chosen, facts, len(piece.seeds), shapes[side], device))
    student = shapes["student"].parameters
    return PaperCost(
        view=piece.view,
        arm=piece.arm,
        recipe=chosen.name,
        device=device.name,
        cells=tuple(piece.tasks),
        seeds=piece.seeds,
        trainings=trainings,
        evaluations=len(piece.seeds) * len(piece.tasks),
        stages=tuple(stages),
        downloads={name: 2 * shapes[side].parameters for side, name in names.items() if _on_a_hub(name)},
        disk_bytes=4 * student * trainings + (CHECKPOINT_BYTES * student if trainings else 0),
        excess=over,
        assumed=tuple(dict.fromkeys(assumed)),
        pair=judge.words(chosen, method) if judge else "",
    )


def _shape(name: str, facts: Mapping[str, Fact]) -> Shape:
    """From the paper's file, published shapes, or files on this machine; fetches nothing."""
    from harness.models.files import locate

    stated = facts["shapes"].value if "shapes" in facts else {}
    if name in stated:
        return Shape.of(stated[name])
    if (known := published(name)) is not None:
        return known
    if _on_a_hub(name):
        raise BadInput(
            f"the shape of {name} is not known here and a dry run fetches nothing; add to [….estimate]: shapes = "
            f'{{ value = {{ "{name}" = {{ hidden_size = …, … }} }}, source = "its config.json" }}'
        )
    return shape_of(locate(name))


def _on_a_hub(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def _works(method: Method, chosen: Recipe, shapes: Mapping[str, Shape], facts: Mapping[str, Fact]) -> tuple[Work, Work]:
    """The training with texts of expected and of maximum length."""
    limit = chosen.training.max_tokens
    prompts = min(facts["prompts"].value, chosen.data.limit or facts["prompts"].value)
    chosen = job.over_examples(chosen, prompts)
    prompt = min(facts["prompt_tokens"].value, limit - 1)
    response = min(facts["response_tokens"].value, limit - prompt)
    # A dry run fetches no model, so the size of an adapter is assumed.
    adapted = round(ADAPTER_SHARE * shapes["student"].parameters) if adapters.wanted(chosen.student) else None
    usual = work(method, chosen, shapes["student"], shapes["teacher"], prompts, (prompt, response), trained=adapted)
    return usual, replace(usual, response_tokens=limit - prompt)


def _training(usual: Work, longest: Work, device: Device, seeds: int) -> Iterator[StageEstimate]:
    for one, held in zip(stages_of(usual, device), stages_of(longest, device), strict=True):
        if one.stage == "teacher texts":  # once for all methods and seeds that share teacher, prompts and decoding
            yield replace(one, stage=one.stage + SHARED, memory=held.memory)
        else:
            sums = {key: seeds * getattr(one, key) for key in ("tokens", "flops", "seconds")}
            yield replace(one, memory=held.memory, **sums)


def _evaluation(
    tasks: Sequence[str], chosen: Recipe, facts: Mapping[str, Fact], seeds: int, shape: Shape, device: Device
) -> StageEstimate:
    from harness.evaluation.benchmarks import MICRO_NEW_TOKENS, locate

    rows, longest = 0, 0
    for name in tasks:
        task_class, world = locate(name, chosen.world)
        n = task_class.dataset.n if world == "real" else 150
        samples = chosen.evaluation.samples or task_class.decoding.samples
        rows += min(n, chosen.evaluation.limit or n) * samples * seeds
        allowed = task_class.decoding.max_new_tokens if world == "real" else MICRO_NEW_TOKENS
        longest = max(longest, chosen.evaluation.max_new_tokens or allowed)
    answer = min(facts["answer_tokens"].value, longest)
    lengths = (facts["prompt_tokens"].value, answer, longest)
    return answering(shape, rows, lengths, chosen.evaluation.batch, device)


def as_json(costs: Sequence[PaperCost]) -> dict[str, Any]:
    return {"kind": "estimate", "totals": totals(costs), "pieces": [asdict(e) for e in costs], "rules": list(RULES)}


def totals(costs: Sequence[PaperCost]) -> dict[str, float]:
    """Sums over all pieces; shared teacher texts and downloads count once."""
    shared = {(e.recipe, s.stage): s for e in costs for s in e.stages if s.stage.endswith(SHARED)}
    stages = [s for e in costs for s in e.stages if not s.stage.endswith(SHARED)] + list(shared.values())
    downloads = {name: size for e in costs for name, size in e.downloads.items()}
    return {
        "trainings": sum(e.trainings for e in costs),
        "evaluations": sum(e.evaluations for e in costs),
        "tokens": sum(s.tokens for s in stages),
        "flops": sum(s.flops for s in stages),
        "device_hours": sum(s.seconds for s in stages) / 3600,
        "peak_memory_bytes": max((s.memory for s in stages), default=0),
        "download_bytes": sum(downloads.values()),
        "disk_bytes": sum(downloads.values()) + sum(e.disk_bytes for e in costs),
    }


def text(costs: Sequence[PaperCost]) -> str:
    """The estimate for people."""
    sums, lines = totals(costs), []
    for each in costs:
        view = {STEPS: ", equal steps", COMPUTE: ", equal compute"}.get(each.view, "")
        lines.append(
            f"{each.arm} (recipe {each.recipe}{view}): trainings {each.trainings}, evaluations {each.evaluations}: "
            f"{', '.join(each.cells)}; seeds {', '.join(map(str, each.seeds))}"
        )
        lines += [f"  {s.stage:<28}{_figures(s)}" for s in each.stages]
        lines += [f"  download {name} ~{size / 1e9:.1f} GB unless it is there" for name, size in each.downloads.items()]
        lines += [f"  would be refused: {each.excess}"] if each.excess else []
        lines += [f"  pair: {each.pair}"] if each.pair else []
    for name in dict.fromkeys(e.recipe for e in costs):
        lines += ["", f"assumed for recipe {name}:"]
        lines += [f"  {word}" for word in dict.fromkeys(w for e in costs if e.recipe == name for w in e.assumed)]
    devices = ", ".join(dict.fromkeys(e.device for e in costs))
    lines += [
        "",
        f"in all: trainings {sums['trainings']}, evaluations {sums['evaluations']}; {sums['tokens']:.3g} tokens, "
        f"{sums['flops']:.3g} FLOPs, about {sums['device_hours']:.3g} device-hours "
        f"({'CPU' if 'cpu' in devices else 'GPU'}-hours of {devices}), "
        f"{_bytes(sums['peak_memory_bytes'])} of memory; {_bytes(sums['download_bytes'])} to download, "
        f"{_bytes(sums['disk_bytes'])} of disk",
        *(f"  {rule}" for rule in RULES),
        "  recorded results are not run again; nothing was run, and no weights were downloaded",
    ]
    return "\n".join(lines)


def _figures(stage: StageEstimate) -> str:
    amounts = f"{stage.tokens:>9.3g} tokens {stage.flops:>8.3g} FLOPs"
    return f"{amounts} {stage.seconds / 3600:>6.3g} h {_bytes(stage.memory):>8}"


def _bytes(value: float) -> str:
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value / 1e3:.3g} kB"
