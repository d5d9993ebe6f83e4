"""``harness reproduce``: runs the rows of a paper through the ordinary plan and run, and keeps ordinary records.

    pieces (arm x recipe x tasks x seeds) -> harness.plan.prepare -> harness.run.run -> records, and what is missing

There is no second loop: an interrupted reproduction continues because every run does. A piece whose data or model is
not available is named, and the others run.
"""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness import durable, safe_read
from harness.errors import BadInput, RunFailed, unknown
from harness.leaderboard import COMPUTE, DEFAULT_UNIT, STEPS, equal_compute
from harness.papers import printed_rows
from harness.papers.printed_rows import PrintedRow
from harness.papers.spec import ModelPair, PaperQuestion, PaperSpec
from harness.plan import RunRequest, prepare
from harness.records import reported
from harness.records.record import Record, fingerprint

PAPER = "paper"  # a view beside those of a table: the rows that the paper prints
Announce = Callable[[str], None]


@dataclass(frozen=True)
class ReproduceRequest:
    """``harness reproduce`` as typed."""

    scale: str = PAPER
    only: Sequence[str] = ()
    seeds: Sequence[int] = ()  # empty: those of the paper's file
    settings: Sequence[str] = ()  # of the recipe: "training.steps=3"
    results: Path = Path("results")
    judge: str | None = None
    device: str | None = None
    published: Sequence[Path] = ()  # folders of records to reuse if training, prompts and decoding are equal
    views: Sequence[str] = (STEPS, COMPUTE)  # of the question
    unit: str = DEFAULT_UNIT  # what equal compute is measured in


@dataclass(frozen=True)
class Piece:
    """One arm under one recipe: its students, each evaluated on some tasks."""

    view: str
    arm: str
    method: str
    recipe: str | ModelPair  # the name of a recipe, or a pair, which is one
    settings: tuple[str, ...]
    tasks: dict[str, str]  # cell (or task) -> the task name to run
    seeds: tuple[int, ...]


@dataclass
class Reproduction:
    """The outcome: records by (view, arm, cell), and what could not be run, with the reason."""

    spec: PaperSpec
    request: ReproduceRequest
    paper: reported.Paper
    records: dict[tuple[str, str, str], list[Record]] = field(default_factory=dict)
    missing: list[dict[str, str]] = field(default_factory=list)
    budget: ComputeBudget | None = None

    @property
    def question(self) -> PaperQuestion:
        """The question at the requested scale."""
        return self.spec.questions[self.request.scale]

    @property
    def views(self) -> Sequence[str]:
        """The requested views that the question has: without equal steps, equal compute alone."""
        return self.request.views if not self.asks or self.question.equal_steps else (COMPUTE,)

    @property
    def asks(self) -> bool:
        """Whether to ask the paper's question instead of running its rows."""
        return self.request.scale != PAPER

    def file(self, ending: str) -> Path:
        """Where the page (``.md``), its numbers (``.json``) or the budget (``.budget.json``) is stored."""
        return self.request.results / "reproductions" / f"{self.spec.name}-{self.request.scale}{ending}"


def pieces(outcome: Reproduction) -> list[Piece]:
    """The first runs; the arms of the equal-compute view follow from their cost.

    Rows whose method or task is not available go to ``outcome.missing``. Raises BadInput for a cell or task that
    ``--only`` names and the paper does not have.
    """
    spec, request, paper = outcome.spec, outcome.request, outcome.paper
    if any(setting.startswith("method.") for setting in request.settings):
        raise BadInput("--set method.…: the paper's file defines the methods; change a copy of it and give that")
    if outcome.asks:
        return list(_of_question(spec, request))
    return list(_of_paper(spec, request, paper, outcome.missing))


def _of_paper(
    spec: PaperSpec, request: ReproduceRequest, paper: reported.Paper, missing: list[dict[str, str]]
) -> Iterator[Piece]:
    covered = {cell: pair for pair in spec.pairs for cell in pair.cells}
    tasks = {cell["id"]: f"{cell['task'].removesuffix('@real')}" for cell in paper["cells"]} if covered else {}
    rows = {row.cell: row for pair in spec.pairs for row in printed_rows.printed_rows_of(pair, paper)}
    for cell in [*covered, *request.only]:
        if cell not in tasks and cell not in rows:
            raise unknown(f"cell of paper {paper['id']}", cell, {*tasks, *rows})
    if uncovered := [cell for cell in request.only or tasks if cell not in covered and cell not in rows]:
        raise BadInput(f"{spec.name}: no pair is for the cell {', '.join(uncovered)}; add one to its cells")
    yield from _of_printed(
        spec, request, [r for r in rows.values() if not request.only or r.cell in request.only], missing
    )
    for pair in spec.pairs:
        chosen = {cell: _real(tasks[cell]) for cell in pair.cells if not request.only or cell in request.only}
        if chosen:
            settings = (*pair.settings, *request.settings)
            seeds = tuple(request.seeds) or spec.seeds
            yield Piece(PAPER, spec.method, spec.method, pair, settings, chosen, seeds)


def _of_printed(
    spec: PaperSpec, request: ReproduceRequest, rows: Sequence[PrintedRow], missing: list[dict[str, str]]
) -> Iterator[Piece]:
    """One piece for each pair and method, or a line on what is missing."""
    chosen: dict[tuple[str, str], list[PrintedRow]] = {}
    for row in rows:
        if reason := row.lacks():
            missing.append({"view": PAPER, "arm": row.method, "cell": row.cell, "reason": reason})
        else:
            chosen.setdefault((row.pair.name, row.method), []).append(row)
    for (name, method), own in chosen.items():
        pair = own[0].pair
        settings = (*(pair.settings if method == spec.method else ()), *request.settings)
        tasks = {row.cell: _real(row.task) for row in own}
        yield Piece(PAPER, f"{method} ({name})", method, pair, settings, tasks, tuple(request.seeds) or spec.seeds)


def _of_question(spec: PaperSpec, request: ReproduceRequest) -> Iterator[Piece]:
    question = spec.questions.get(request.scale)
    if question is None:
        raise BadInput(f"{spec.name} asks nothing of the {request.scale} world: its file has no [{request.scale}]")
    for name in request.only:
        if name not in question.tasks and name not in {task.partition("@")[0] for task in question.tasks}:
            raise unknown("task of the question", name, question.tasks)
    chosen = {
        t: t for t in question.tasks if not request.only or t in request.only or t.partition("@")[0] in request.only
    }
    if not question.equal_steps and COMPUTE not in request.views:
        raise BadInput(f"{spec.name} asks at equal compute alone in the {request.scale} world; leave --view out")
    view = STEPS if question.equal_steps else COMPUTE
    seeds = tuple(request.seeds) or question.seeds
    for name in question.references:  # not trained: one seed is enough
        yield Piece(view, name, name, question.recipe, tuple(request.settings), chosen, question.seeds[:1])
    for arm in question.arms:
        own = () if arm.steps is None else (f"training.steps={arm.steps}",)
        settings = (*arm.settings, *own, *request.settings)
        yield Piece(view, arm.name, arm.method, question.recipe, settings, chosen, seeds)


def _real(task: str) -> str:
    return task if task.endswith(".py") or "@" in task else f"{task}@real"


def reproduce(
    spec: PaperSpec,
    request: ReproduceRequest,
    paper: reported.Paper,
    progress: Callable[..., None],
    announce: Announce,
) -> Reproduction:
    """Runs what is not recorded yet. Raises BadInput for an invalid request."""
    outcome = Reproduction(spec, request, paper)
    first = pieces(outcome)
    for piece in first:
        _obtain(piece, outcome, progress, announce)
    if outcome.asks and COMPUTE in request.views:
        for piece in _equal_compute(first, outcome, announce):
            _obtain(piece, outcome, progress, announce)
    return outcome


def _equal_compute(first: Iterable[Piece], outcome: Reproduction, announce: Announce) -> Iterator[Piece]:
    """The arms with as many steps as cost the same as the target; arms of equal cost keep their run."""
    question, request = outcome.question, outcome.request
    arms = [piece for piece in first if piece.arm not in question.references]
    base = {piece.arm: _any_task(piece, outcome) for piece in arms}
    if not base[question.target]:
        announce(f"equal compute: {question.target} could not be run, so there is no budget for the others")
        return
    recorded = {name: records for name, records in base.items() if records}
    outcome.budget = decide_budget(
        recorded, question.target, question.control, request.unit, outcome.file(".budget.json")
    )
    for piece in arms:
        steps = outcome.budget.steps.get(piece.arm)
        if steps is None:
            for cell in piece.tasks:
                if records := outcome.records.get((piece.view, piece.arm, cell)):
                    outcome.records[COMPUTE, piece.arm, cell] = records
        else:
            # Another number of steps takes the place of one at which the cost was to be equal and is not.
            for cell in piece.tasks if piece.view == COMPUTE else ():
                outcome.records.pop((COMPUTE, piece.arm, cell), None)
            kept = (s for s in piece.settings if s.partition("=")[0].strip() != "training.epochs")
            settings = (*kept, f"training.steps={steps}")
            yield dataclasses.replace(piece, view=COMPUTE, settings=settings)


def _any_task(piece: Piece, outcome: Reproduction) -> list[Record]:
    """One record per trained student of an arm: the cost of training is the same on every task."""
    return next(filter(None, (outcome.records.get((piece.view, piece.arm, cell)) for cell in piece.tasks)), [])


def _obtain(piece: Piece, outcome: Reproduction, progress: Callable[..., None], announce: Announce) -> None:
    """Runs every cell of ``piece`` that can be run; announces the others with the reason."""
    try:
        _run(piece, dict(piece.tasks), outcome, progress, announce)
        return
    except (BadInput, RunFailed) as error:
        if len(piece.tasks) == 1:
            _miss(piece, next(iter(piece.tasks)), error, outcome, announce)
            return
    for cell, task in piece.tasks.items():  # one by one, because a failure may concern only one cell
        try:
            _run(piece, {cell: task}, outcome, progress, announce)
        except (BadInput, RunFailed) as error:
            _miss(piece, cell, error, outcome, announce)


def _miss(piece: Piece, cell: str, error: Exception, outcome: Reproduction, announce: Announce) -> None:
    reason = " ".join(str(error).split())
    outcome.missing.append({"view": piece.view, "arm": piece.arm, "cell": cell, "reason": reason})
    announce(f"could not run {piece.arm} on {cell}: {reason}")


def _run(
    piece: Piece, tasks: dict[str, str], outcome: Reproduction, progress: Callable[..., None], announce: Announce
) -> None:
    from harness.rerun import graded_again
    from harness.run import run

    request = outcome.request
    with tempfile.TemporaryDirectory() as scratch:
        run_request = RunRequest(
            methods=[piece.method],
            tasks=list(tasks.values()),
            recipe=_recipe_file(piece.recipe, Path(scratch)),
            seeds=piece.seeds,
            settings=piece.settings,
            results=request.results,
            device=request.device,
            judge=request.judge,
        )
        plan = prepare(run_request)
    graded_again.take(plan, request.published, announce)
    titles = {task.title: cell for cell, task in zip(tasks, plan.tasks, strict=True)}
    for record in run(plan, progress, announce):
        key = (piece.view, piece.arm, titles[record["task"]])
        outcome.records.setdefault(key, []).append(record)


def _recipe_file(recipe: str | ModelPair, folder: Path) -> str:
    """The recipe for ``harness run``: a name, or a file written from the pair's facts."""
    if isinstance(recipe, str):
        return recipe
    lines = []
    for part, values in recipe.table().items():
        lines.append(f"[{part}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    path = folder / f"{recipe.name}.toml"
    durable.write(path, ("\n".join(lines) + "\n").encode())
    return str(path)


def write(outcome: Reproduction, text: str, facts: Any) -> Path:
    """Writes the page and its numbers next to the records. Returns the path of the page."""
    for ending, content in ((".md", text), (".json", json.dumps(facts, indent=1, ensure_ascii=False))):
        durable.write(outcome.file(ending), (content.rstrip() + "\n").encode("utf-8", "backslashreplace"))
    return outcome.file(".md")


# Equal compute: the number of steps at which the other methods have the cost of the target.
#
#     steps = base steps x cost of the target / cost of the method        (medians over seeds, two significant digits)
#
# :mod:`harness.leaderboard.equal_compute` defines costs and their equality; the anchor here is the target. A method
# whose cost equals the target's keeps its run, and so does the target's control, which may differ only in the
# placement of its weights. The decision is stored once, so that an interrupted or divided reproduction keeps it
# although seconds vary.

RULE = (
    "every method has as many steps as {target}'s cost allows (median over seeds of {unit} of training, steps "
    f"rounded to two digits); a method {equal_compute.WITHIN} of that cost keeps its run, and so does the control"
)


@dataclass(frozen=True)
class ComputeBudget:
    unit: str
    target: str
    costs: dict[str, float]  # by arm, of the base run
    base: dict[str, int]  # steps of the base run
    steps: dict[str, int]  # steps at the target's cost, for arms that need another number than the base run
    key: str  # hash of the base runs' specifications without seeds: for a changed recipe, decide again

    @property
    def rule(self) -> str:
        return RULE.format(target=self.target, unit=self.unit)


def decide_budget(
    base: Mapping[str, Sequence[Record]], target: str, control: str, unit: str, file: Path
) -> ComputeBudget:
    """The budget for the arms of ``base`` (records of their base runs, one per seed), as first written to ``file``."""
    specs = {name: {k: v for k, v in records[0]["spec"].items() if k != "seed"} for name, records in base.items()}
    key = fingerprint({"specs": specs, "target": target, "unit": unit})
    if file.is_file():
        try:
            earlier = ComputeBudget(**safe_read.value(safe_read.content(file, safe_read.TABLE)))
        except (BadInput, TypeError) as error:
            raise BadInput(f"{file}: was changed or damaged ({error}); remove it to decide again") from None
        if earlier.key == key:
            return earlier
    costs = {name: equal_compute.median_cost(records, unit) for name, records in base.items()}
    steps = {name: records[0]["cost"]["steps"] for name, records in base.items()}
    bought = {}
    for name in base:
        ratio = costs[target] / costs[name] if costs[name] > 0 else 1.0
        buys = max(two_digits(steps[name] * ratio), 1)
        if name != control and buys != steps[name] and not equal_compute.alike(costs[name], costs[target]):
            bought[name] = buys
    budget = ComputeBudget(unit, target, costs, steps, bought, key)
    durable.write(file, (json.dumps(asdict(budget), indent=1) + "\n").encode())
    return budget


def two_digits(value: float) -> int:
    """``value`` rounded to two significant digits: 1234 to 1200, 87.6 to 88."""
    if value < 10:
        return round(value)
    digits = 10 ** (math.floor(math.log10(value)) - 1)
    return round(value / digits) * digits
