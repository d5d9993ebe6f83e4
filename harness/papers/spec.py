"""Parses the file that says how to reproduce the rows of a paper: ``harness/papers/<id>.toml`` or your own.

Every value of a pair is a fact ``{ value, source }``: the value, and who states it, or "assumed"; missing values
are the recipe's or the method's defaults. The file's other half, ``[micro]`` or ``[small]``, asks the paper's
question in a small world, and ``[left_out]`` names parts that cannot be run, and why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from harness import options, recipe, registry, safe_read
from harness.errors import BadInput, unknown
from harness.estimate.resources import DEVICES
from harness.estimate.shapes import Shape
from harness.recipe import Recipe
from harness.records import reported
from harness.types import SEEDS

PARTS = ("models", "student", "data", "training", "rollout", "teacher_text", "evaluation")
FILLED = (
    "models",
    "student",
    "data",
    "training",
    "rollout",
    "teacher_text",
)  # parts whose unstated keys are assumed by default
# Keys of a recipe that change how a run proceeds, not what is trained.
HOW_IT_RUNS = {"checkpoint_every", "threads", "signal", "top_k", "gradient_checkpointing", "trust_remote_code"}
HOW_IT_RUNS |= {
    "divergence_every",
    "micro_tokens",
    "optimizer",
    "momentum",
    "master_weights",
}  # AdamW in float32 unless a paper states it
SCALES = ("micro", "small")  # worlds in which a question is asked
LENGTHS = ("prompts", "prompt_tokens", "response_tokens", "answer_tokens")
ESTIMATE = (*LENGTHS, "device")  # facts that a dry run needs; and "shapes" of models unknown to the harness


@dataclass(frozen=True)
class Fact:
    """A value and its source."""

    value: Any
    source: str

    @property
    def assumed(self) -> bool:
        return self.source.startswith(("assumed", "deduced"))


Facts = dict[str, dict[str, Fact]]  # by section and key


@dataclass(frozen=True)
class PrintedRows:
    """Rows of a printed table: where its cells are, and the harness' names of its methods and benchmarks."""

    locator: str
    student: str  # as named in the table
    rows: dict[str, str]
    benchmarks: dict[str, str]
    setting: str = ""  # distinguishes otherwise equal cells
    teacher: str = ""  # as named in the table, if it has several for one student


@dataclass(frozen=True)
class ModelPair:
    """A teacher, a student and a training recipe, for the paper's cells ``cells`` or for rows of a printed table."""

    name: str
    cells: tuple[str, ...]
    stated: Facts  # by the file
    method: str  # of the paper, whose settings are facts too
    printed: PrintedRows | None = None

    @cached_property
    def facts(self) -> Facts:
        """All facts: those of the file, and the defaults of the recipe and the method. Imports the method."""
        return {part: inner for part in (*PARTS, "method", "estimate") if (inner := self._filled(part))}

    def _filled(self, part: str) -> dict[str, Fact]:
        stated = self.stated.get(part, {})
        return _defaults(part, stated, self.method) | stated

    def recipe(self) -> Recipe:
        """The training recipe of the facts. Raises BadInput for an unknown key or a wrong value."""
        return recipe.from_table(self.name, self.table(), f"pair {self.name}")

    def table(self) -> dict[str, dict[str, Any]]:
        """The facts as in a recipe's file, without None."""
        filled = {part: self._filled(part) for part in PARTS}
        return {
            part: {key: fact.value for key, fact in inner.items() if fact.value is not None}
            for part, inner in filled.items()
            if inner
        }

    @property
    def settings(self) -> list[str]:
        """The method's hyper-parameters as ``--set`` takes them."""
        return [f"method.{key}={options.as_word(fact.value)}" for key, fact in self.facts.get("method", {}).items()]


@dataclass(frozen=True)
class Arm:
    """One arm of a question: a method with its settings, under a ``name``."""

    name: str
    method: str
    settings: tuple[str, ...]
    steps: int | None = None  # at which it costs as much as the others; None: those of the recipe


@dataclass(frozen=True)
class PaperQuestion:
    """The paper's question in the small: does ``target`` beat the other arms, and its ``control``, if it has one?"""

    recipe: str
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]
    target: str
    control: str
    references: tuple[str, ...]
    arms: tuple[Arm, ...]
    estimate: dict[str, Fact]
    caveat: str = ""  # what the world of the question cannot show

    @property
    def equal_steps(self) -> bool:
        """Whether all arms train the recipe's steps. Otherwise each has steps at which all cost the same."""
        return all(arm.steps is None for arm in self.arms)

    @property
    def baselines(self) -> list[str]:
        return [arm.name for arm in self.arms if arm.name not in (self.target, self.control)]


@dataclass(frozen=True)
class PaperSpec:
    name: str
    reported: str
    method: str
    about: str
    seeds: tuple[int, ...]
    pairs: tuple[ModelPair, ...]
    questions: dict[str, PaperQuestion]  # by scale
    left_out: dict[str, str]  # parts of the paper that cannot be run here, and why


def names() -> list[str]:
    """The papers that ship with the harness."""
    folder = resources.files("harness.papers")
    return sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml"))


def load(name_or_file: str, results: Path | str = "results") -> PaperSpec:
    """A shipped paper by name, or a TOML file. Raises BadInput that names the faulty place.

    ``results``: the folder of papers with only reported cells.
    """
    if name_or_file.endswith(".toml"):
        try:
            name, content = Path(name_or_file).stem, safe_read.content(name_or_file, safe_read.TABLE)
        except BadInput as error:
            raise BadInput(f"paper file {name_or_file}: {error}") from None
    elif name_or_file in names():
        name, content = name_or_file, (resources.files("harness.papers") / f"{name_or_file}.toml").read_bytes()
    elif name_or_file in reported.names(results):
        raise BadInput(
            f"paper {name_or_file}: its reported cells are known (harness show paper {name_or_file}), but no recipe "
            f"file says how to reproduce them; write one like those in harness/papers: harness reproduce FILE.toml"
        )
    else:
        raise unknown("paper", name_or_file, names())
    table = safe_read.toml(content, name_or_file)
    _keys(table, {"reported", "method", "about", "paper", "shared", "pair", *SCALES, "left_out"}, name_or_file)
    for key in ("reported", "method", "about"):
        if not isinstance(table.get(key), str) or not table[key]:
            raise BadInput(f"{name_or_file}: {key} must be text")
    shared = _sections(table.get("shared", {}), f"{name_or_file}: shared")
    own = table["method"]
    pairs = [_pair(key, value, shared, own, name_or_file) for key, value in _table(table, "pair", name_or_file).items()]
    questions = {scale: _question(table[scale], f"{name_or_file}: {scale}") for scale in SCALES if scale in table}
    if not pairs and not questions:
        raise BadInput(f"{name_or_file}: neither a [pair.NAME] nor [micro]: nothing to run")
    paper = _table(table, "paper", name_or_file)
    _keys(paper, {"seeds"}, f"{name_or_file}: paper")
    seeds = _seeds(paper.get("seeds", [0]), f"{name_or_file}: paper.seeds")
    about = " ".join(table["about"].split())
    left_out = _table(table, "left_out", name_or_file)
    if not all(isinstance(reason, str) and reason for reason in left_out.values()):
        raise BadInput(f"{name_or_file}: left_out must say in text why each part is left out")
    return PaperSpec(name, table["reported"], table["method"], about, seeds, tuple(pairs), questions, left_out)


def _pair(name: str, value: Any, shared: Facts, method: str, where: str) -> ModelPair:
    where = f"{where}: pair.{name}"
    if not isinstance(value, dict) or not (_words(value.get("cells")) or "printed" in value):
        raise BadInput(f'{where}: needs cells = ["…"], the paper\'s cells that it is for, or printed rows')
    rows = _printed(value["printed"], f"{where}: printed") if "printed" in value else None
    own = _sections({key: inner for key, inner in value.items() if key not in ("cells", "printed")}, where)
    stated = {part: shared.get(part, {}) | own.get(part, {}) for part in (*PARTS, "method", "estimate")}
    _check_estimate(stated["estimate"], f"{where}: estimate")
    pair = ModelPair(name, tuple(value.get("cells", ())), stated, method, rows)
    pair.recipe()
    return pair


def _printed(value: Any, where: str) -> PrintedRows:
    """Raises BadInput unless ``value`` has locator and student as text, rows and benchmarks as names by names."""
    if not isinstance(value, dict):
        raise BadInput(f"{where} must be a table")
    _keys(value, {"locator", "student", "setting", "teacher", "rows", "benchmarks"}, where)
    for key in ("locator", "student", "setting", "teacher"):
        if not isinstance(value.get(key, "" if key in ("setting", "teacher") else None), str):
            raise BadInput(f"{where}.{key} must be text, as the printed table has it")
    for key in ("rows", "benchmarks"):
        names = value.get(key)
        if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
            raise BadInput(f'{where}.{key} must be {{ "as printed" = "name here", … }}')
    return PrintedRows(**value)


def _defaults(part: str, stated: Mapping[str, Fact], method: str) -> dict[str, Fact]:
    """The values that a file leaves to the recipe or the method, so that a dry run shows them too."""
    if part == "method":
        return _of_method(method)
    if part not in FILLED:
        return {}
    # Steps and epochs both set the length; the stated one replaces the other.
    left = {*HOW_IT_RUNS, "student", "teacher", "steps" if "epochs" in stated else "epochs"}
    fields = dataclasses.fields(recipe.SECTIONS[part])
    return {f.name: Fact(f.default, "assumed: the recipe's default") for f in fields if f.name not in left}


def _of_method(label: str) -> dict[str, Fact]:
    """The settings of a method and variant with their sources; empty if it is not available."""
    name, _, variant = label.partition("@")
    try:
        method_class = registry.find(registry.METHODS, name)
    except BadInput:
        return {}
    chosen = method_class.variants.get(variant, {})
    return {
        f.name: Fact(chosen.get(f.name, f.default), f"variant {label}" if f.name in chosen else f.metadata["source"])
        for f in dataclasses.fields(method_class.Config)
    }


def _question(value: Any, where: str) -> PaperQuestion:
    if not isinstance(value, dict):
        raise BadInput(f"{where} must be a table")
    _keys(value, {"recipe", "tasks", "seeds", "target", "control", "references", "arm", "estimate", "caveat"}, where)
    if not isinstance(value.get("caveat", ""), str):
        raise BadInput(f"{where}.caveat must be text: what this world cannot show")
    arms = []
    for number, arm in enumerate(value.get("arm", []), 1):
        if not isinstance(arm, dict) or not isinstance(arm.get("name"), str):
            raise BadInput(f"{where}.arm {number} needs a name")
        _keys(arm, {"name", "method", "settings", "steps"}, f"{where}.arm {arm['name']}")
        steps = arm.get("steps")
        if steps is not None and (type(steps) is not int or steps < 1):
            raise BadInput(f"{where}.arm {arm['name']}: steps {steps!r} is not a whole number from 1")
        settings = arm.get("settings", {})
        words = tuple(f"method.{key}={options.as_word(inner)}" for key, inner in settings.items())
        arms.append(Arm(arm["name"], arm.get("method", arm["name"]), words, steps))
    if len({arm.steps is None for arm in arms}) > 1:
        raise BadInput(f"{where}: give every arm steps of its own, at which all cost the same, or none of them")
    known = [arm.name for arm in arms]
    for key in ("target", "control"):
        if value.get(key) not in known and (key, value.get(key)) != ("control", None):
            raise BadInput(f"{where}: {unknown(f'arm as {key}', str(value.get(key)), known)}")
    if len(set(known)) != len(known):
        raise BadInput(f"{where}: two arms have one name among {', '.join(known)}")
    for key in ("tasks", "references"):
        if not _words(value.get(key)):
            raise BadInput(f"{where}.{key} must be a list of names")
    estimate = _facts(value.get("estimate", {}), f"{where}.estimate")
    _check_estimate(estimate, f"{where}.estimate")
    return PaperQuestion(
        str(value.get("recipe", "micro")),
        tuple(value["tasks"]),
        _seeds(value.get("seeds"), f"{where}.seeds"),
        value["target"],
        value.get("control", ""),
        tuple(value["references"]),
        tuple(arms),
        estimate,
        value.get("caveat", ""),
    )


def _check_estimate(facts: Mapping[str, Fact], where: str) -> None:
    """Raises BadInput unless the facts that a dry run needs are complete and valid."""
    _keys(facts, {*ESTIMATE, "shapes"}, where)
    if missing := [key for key in ESTIMATE if key not in facts]:
        raise BadInput(f"{where} lacks {', '.join(missing)}")
    for key in LENGTHS:
        if type(facts[key].value) is not int or facts[key].value < 1:
            raise BadInput(f"{where}.{key}: {facts[key].value!r} is not a whole number from 1")
    if facts["device"].value not in DEVICES:
        raise BadInput(f"{where}.device: {unknown('device', str(facts['device'].value), DEVICES)}")
    shapes = facts["shapes"].value if "shapes" in facts else {}
    if not isinstance(shapes, dict):
        raise BadInput(f'{where}.shapes: write {{ value = {{ "org/name" = {{ hidden_size = … }} }}, source = … }}')
    for name, config in shapes.items():
        try:
            shape = Shape.of(config)
        except KeyError as missing:
            raise BadInput(f"{where}.shapes: {name} lacks {missing} of its config.json") from None
        except (TypeError, AttributeError, ZeroDivisionError):
            raise BadInput(f"{where}.shapes: {name} must be a table of sizes, whole numbers from 1") from None
        sizes = [value for key, value in vars(shape).items() if key not in ("tied", "counted")]
        if not all(type(size) is int and size > 0 for size in sizes):
            raise BadInput(f"{where}.shapes: {name} must be a table of sizes, whole numbers from 1")


def _sections(value: Any, where: str) -> Facts:
    if not isinstance(value, dict):
        raise BadInput(f"{where} must be a table")
    _keys(value, {*PARTS, "method", "estimate"}, where)
    return {part: _facts(content, f"{where}.{part}") for part, content in value.items()}


def _facts(value: Any, where: str) -> dict[str, Fact]:
    return dict(_each(value, where))


def _each(value: Any, where: str) -> Iterator[tuple[str, Fact]]:
    if not isinstance(value, dict):
        raise BadInput(f"{where} must be a table")
    for key, fact in value.items():
        if not isinstance(fact, dict) or fact.keys() != {"value", "source"} or not isinstance(fact["source"], str):
            raise BadInput(f'{where}.{key}: write {{ value = …, source = "who says so, or assumed" }}')
        yield key, Fact(fact["value"], fact["source"])


def _keys(table: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in table:
        if key not in known:
            raise BadInput(f"{where}: {unknown('key', key, known)}")


def _table(table: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    if not isinstance(table.get(key, {}), dict):
        raise BadInput(f"{where}: {key} must be a table")
    return table.get(key, {})


def _words(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(word, str) for word in value)


def _seeds(value: Any, where: str) -> tuple[int, ...]:
    fits = isinstance(value, list) and value and all(type(seed) is int and seed in SEEDS for seed in value)
    if not fits:
        raise BadInput(f"{where} must be a list of whole numbers from 0 to {SEEDS[-1]}")
    return tuple(value)
