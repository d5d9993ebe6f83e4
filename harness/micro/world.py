"""The interface of the micro world: benchmark files, training examples, step checker, shipped models.

Everything is generated from fixed seeds, the same rows on every machine. A problem (its content, not only its
wording) belongs to one split: test problems are drawn first, then validation, labelled and unlabelled prompts;
the teacher's training stream avoids them all.
"""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from itertools import zip_longest
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

from harness.errors import BadInput, unknown
from harness.micro import arenas, code, derivations, instruction, maths
from harness.task import Data
from harness.types import Example

VERSION = "1"
FAMILIES: dict[str, ModuleType] = {"maths": maths, "code": code, "instruction": instruction}
MODULES = FAMILIES | {"derivations": derivations}  # with the family of the arenas
TEST_SIZE = 150  # problems per task
SIZES = {  # examples per family
    "validation": {"maths": 100, "code": 100, "instruction": 100},
    "labelled": {"maths": 200, "code": 150, "instruction": 200},
    "prompts": {"maths": 500, "code": 500, "instruction": 500},
}
# As in the real benchmarks, the plus version asks the same problems and tests harder.
ANY_ANSWER = "math500@micro"  # the task whose grader takes answers of every kind
SAME_PROBLEMS = {"humanevalplus": "humaneval", "mbppplus": "mbpp"}
TASKS = {task: family for family, module in FAMILIES.items() for task in module.TASKS}
TASKS |= {task: TASKS[original] for task, original in SAME_PROBLEMS.items()}

WEIGHTS = Path(__file__).parent / "weights"


def dataset(task_name: str, world: str = "micro") -> Data:
    """The generated items of a benchmark in its own file format. Raises BadInput for a task without any."""
    if world == arenas.WORLD:
        return _data(arenas.rows(task_name), f"generated, {arenas.WORLD} of micro world v{VERSION}", world)
    if task_name not in TASKS:
        raise BadInput(f"task {task_name!r} has no micro version; those that have one: {', '.join(sorted(TASKS))}")
    return pickle.loads(_dataset(task_name))


@cache
def _dataset(task_name: str) -> bytes:
    """``dataset(task_name)``, pickled: generated once a process, and each task gets rows of its own to work on."""
    family = TASKS[task_name]
    problems = _splits(family)[SAME_PROBLEMS.get(task_name, task_name)]
    rows = [FAMILIES[family].row(task_name, index, problem) for index, problem in enumerate(problems)]
    return pickle.dumps(_data(rows, f"generated, micro world v{VERSION}", "micro"))


def _data(rows: list[dict[str, Any]], source: str, world: str) -> Data:
    canonical = json.dumps(rows, sort_keys=True, separators=(",", ":"))
    return Data(rows=rows, sha256=hashlib.sha256(canonical.encode()).hexdigest(), source=source, world=world)


def examples(split: str) -> list[Example]:
    """The examples of ``labelled``, ``prompts`` (without response) or ``validation``, families interleaved.

    ``FAMILY/SPLIT`` are those of one family, ``WORLD/SPLIT`` those of the arenas.
    """
    if split.startswith(f"{arenas.WORLD}/"):
        return arenas.examples(split.partition("/")[2])
    *family, split = split.split("/", 1)
    if family and family[0] not in FAMILIES:
        raise unknown("family or world", family[0], (*FAMILIES, arenas.WORLD))
    if split not in SIZES:
        raise unknown("split", split, SIZES)
    by_family = [_examples(name, split) for name in family or FAMILIES]
    interleaved = [example for turn in zip_longest(*by_family) for example in turn if example is not None]
    if split == "prompts":
        return [replace(example, response=None) for example in interleaved]
    return interleaved


def held_out(task_name: str) -> list[Example]:
    """The problems of ``dataset(task_name)`` with their right responses, to measure models outside a run."""
    return _examples(TASKS[task_name], SAME_PROBLEMS.get(task_name, task_name))


def _examples(family: str, split: str) -> list[Example]:
    return [
        Example(f"micro/{split}/{family}/{index}", problem.prompt, problem.response, problem.meta)
        for index, problem in enumerate(_splits(family)[split])
    ]


def training_stream(seed: int, turns: Sequence[str] = tuple(FAMILIES)) -> Iterator[Example]:
    """An endless stream of labelled examples outside all splits; ``turns`` is the order of families."""
    taken = {family: _keys(family) for family in FAMILIES}
    rng = Random(f"micro world {VERSION}/stream/{seed}")
    number = 0
    while True:
        for family in turns:
            module = FAMILIES[family]
            problem = module.draw(rng, rng.choice(module.TASKS))
            if problem.key not in taken[family]:
                yield Example(f"micro/stream/{seed}/{number}", problem.prompt, problem.response, problem.meta)
                number += 1


def solved(example: Example, text: str) -> bool:
    """Whether ``text`` answers ``example``: box, program or answer line; nothing is executed."""
    return MODULES[example.meta["family"]].solved(example.meta, text)


def check_step(meta: Mapping[str, Any], prefix: str, step: str) -> float | None:
    """1.0 if the line ``step`` is a right next step after the response so far, 0.0 if not, None if unknown.

    ``prefix`` is empty or ends with a newline; otherwise ``step`` continues its last line. Errors in
    ``prefix`` do not count. An empty step is the end of the response.
    """
    *done, line = (prefix + step.rstrip("\n")).split("\n")
    return MODULES[meta["family"]].check_step(meta, done, line)


def same_step(meta: Mapping[str, Any], prefix: str, one: str, other: str) -> bool:
    """Whether two lines mean the same next step; without a rule of the family, only equal lines do."""
    rule = getattr(MODULES[meta["family"]], "same_step", None)
    return one.strip() == other.strip() if rule is None else rule(meta, prefix, one, other)


def model_path(role: str) -> Path:
    """The folder of the shipped ``teacher`` or ``student``, or of a model of the arenas, ``WORLD/NAME``."""
    if role.startswith(f"{arenas.WORLD}/"):
        return arenas.model_path(role.partition("/")[2])
    if role not in ("teacher", "student"):
        raise unknown("micro model", role, ("teacher", "student"))
    return WEIGHTS / role


@cache
def _splits(family: str) -> dict[str, list[Any]]:
    """Split or task name -> its problems; no problem is in two of them."""
    module = FAMILIES[family]
    taken: set[Any] = set()
    splits = {task: _draw(module, (task,), TEST_SIZE, task, taken) for task in module.TASKS}
    for split, sizes in SIZES.items():
        splits[split] = _draw(module, module.TASKS, sizes[family], split, taken)
    return splits


def _draw(module: ModuleType, styles: tuple[str, ...], size: int, split: str, taken: set[Any]) -> list[Any]:
    rng = Random(f"micro world {VERSION}/{module.__name__.rpartition('.')[2]}/{split}")
    problems: list[Any] = []
    while len(problems) < size:
        problem = module.draw(rng, styles[len(problems) % len(styles)])
        if problem.key not in taken:
            taken.add(problem.key)
            problems.append(problem)
    return problems


def _keys(family: str) -> set[Any]:
    return {problem.key for problems in _splits(family).values() for problem in problems}
