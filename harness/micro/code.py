"""Code: a function on a list of numbers, described step by step, one line of its body per step.

HumanEval's flavour completes a stub (signature and docstring); MBPP's writes the whole function from a
docstring with one assert. Problems and tests are in the files' own formats, so the real graders execute them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from harness.micro import interpreter, render
from harness.micro.phrasing import narrate
from harness.types import Prompt

TASKS = ("humaneval", "mbpp")
NAMES = ("convert", "refine", "select")
FIRST_ID = 10_000  # above the numbers whose inputs evalplus repairs by task id
LENGTHS = {"humaneval": (3,), "mbpp": (2, 3)}


@dataclass(frozen=True)
class ListOperation:
    """A step: the ways to say it and the line that does it; ``k`` ranges over ``parameters``."""

    phrases: tuple[str, ...]
    line: str
    parameters: range = range(1)


STEPS = (
    ListOperation(("add {k} to each number", "add {k} everywhere"), "xs = [x + {k} for x in xs]", range(1, 10)),
    ListOperation(
        ("subtract {k} from each number", "subtract {k} everywhere"), "xs = [x - {k} for x in xs]", range(1, 10)
    ),
    ListOperation(
        ("multiply each number by {k}", "scale every number by {k}"), "xs = [x * {k} for x in xs]", range(2, 6)
    ),
    ListOperation(("take each number modulo {k}",), "xs = [x % {k} for x in xs]", range(3, 10)),
    ListOperation(("negate each number", "flip the sign of every number"), "xs = [-x for x in xs]"),
    ListOperation(("keep the even numbers", "pick the even ones"), "xs = [x for x in xs if x % 2 == 0]"),
    ListOperation(("keep the odd numbers", "pick the odd ones"), "xs = [x for x in xs if x % 2 == 1]"),
    ListOperation(
        ("keep the numbers above {k}", "pick those above {k}"), "xs = [x for x in xs if x > {k}]", range(1, 10)
    ),
    ListOperation(
        ("keep the numbers below {k}", "pick those below {k}"), "xs = [x for x in xs if x < {k}]", range(1, 10)
    ),
    ListOperation(("reverse the list", "put the list in reverse order"), "xs = xs[::-1]"),
    ListOperation(("sort the list", "put the list in rising order"), "xs = sorted(xs)"),
    ListOperation(("sort the list downwards", "put the list in falling order"), "xs = sorted(xs, reverse=True)"),
    ListOperation(("drop the first number", "leave out the first number"), "xs = xs[1:]"),
    ListOperation(("drop the last number", "leave out the last number"), "xs = xs[:-1]"),
    ListOperation(("keep the first {k} numbers", "cut the list to {k} numbers"), "xs = xs[:{k}]", range(2, 6)),
)
ENDINGS = (
    ListOperation(("return the sum", "add up what is left"), "return sum(xs)"),
    ListOperation(("return the length", "count what is left"), "return len(xs)"),
)
ENDING_SHARE = 0.3


@dataclass(frozen=True)
class Pipeline:
    """A function: its name, its body and the text of its problem; ``whole`` if the reply holds the ``def``."""

    name: str
    body: tuple[str, ...]
    text: str
    whole: bool
    base_inputs: tuple[tuple[int, ...], ...]
    plus_inputs: tuple[tuple[int, ...], ...]

    @property
    def key(self) -> tuple[str, ...]:
        return self.body

    @property
    def lines(self) -> list[str]:
        head = [f"def {self.name}(xs):"] if self.whole else []
        return head + [f"    {line}" for line in self.body]

    @property
    def prompt(self) -> Prompt:
        return render.code(self.text)

    @property
    def response(self) -> str:
        return "\n".join(self.lines)

    @property
    def meta(self) -> dict[str, Any]:
        return {
            "family": "code",
            "entry_point": self.name,
            "stub": "" if self.whole else self.text,
            "lines": self.lines,
            "answer": self.response,
        }


def draw(rng: Random, task: str) -> Pipeline:
    """A pipeline in the flavour of ``task``."""
    length = rng.choice(LENGTHS[task])
    while True:
        ending = rng.choice(ENDINGS) if rng.random() < ENDING_SHARE else None
        operations = [*rng.sample(STEPS, length - 1), ending] if ending else rng.sample(STEPS, length)
        if sum(len(operation.parameters) > 1 for operation in operations) <= 1:
            break  # with one number at most, it is clear which step a number belongs to
    phrases, body = [], []
    for operation in operations:
        k = rng.choice(operation.parameters)
        phrases.append(rng.choice(operation.phrases).format(k=k))
        body.append(operation.line.format(k=k))
    if ending is None:
        body.append("return xs")
    name, sentence = rng.choice(NAMES), narrate(rng, phrases)
    base = tuple(_numbers(rng, length, 0, 12) for length in (3, 4, 5))
    plus = ((), (0,), *(_numbers(rng, rng.randrange(1, 9), -20, 20) for _ in range(18)))
    if task == "humaneval":
        text = f'def {name}(xs):\n    """ With the list xs, {sentence}. """\n'
    else:
        shown = list(base[0])
        text = f'"""\nWith the list xs, {sentence}.\nassert {name}({shown}) == {evaluate(body, shown)}\n"""\n'
    return Pipeline(name, tuple(body), text, task == "mbpp", base, plus)


def _numbers(rng: Random, length: int, low: int, high: int) -> tuple[int, ...]:
    return tuple(rng.randint(low, high) for _ in range(length))


def evaluate(body: list[str] | tuple[str, ...], numbers: list[int]) -> Any:
    """What a function of these lines returns for ``numbers``."""
    source = "\n".join(["def f(xs):", *(f"    {line}" for line in body)])
    return interpreter.call(source, "f", numbers)


def row(task: str, index: int, pipeline: Pipeline) -> dict[str, Any]:
    """The pipeline as a line of HumanEval+'s or MBPP+'s file, from which the tasks without plus read as well."""
    solution = pipeline.response + "\n"
    return {
        "task_id": f"Micro/{FIRST_ID + index}",
        "prompt": pipeline.text,
        "entry_point": pipeline.name,
        "canonical_solution": f"\n{solution}" if pipeline.whole else solution,
        "contract": '\n    assert isinstance(xs, list), "invalid inputs" # $_CONTRACT_$\n',
        "base_input": [[list(numbers)] for numbers in pipeline.base_inputs],
        "atol": 0,
        "plus_input": [[list(numbers)] for numbers in pipeline.plus_inputs],
        **_tests(task, pipeline),
    }


def _tests(task: str, pipeline: Pipeline) -> dict[str, str]:
    cases = [(list(numbers), evaluate(pipeline.body, list(numbers))) for numbers in pipeline.base_inputs]
    if task.startswith("humaneval"):
        asserts = [f"    assert candidate({numbers}) == {result}" for numbers, result in cases]
        return {"test": "\n".join(["", "", "def check(candidate):", *asserts, ""])}
    asserts = [f"assert {pipeline.name}({numbers}) == {result}" for numbers, result in cases]
    return {"assertion": "\n".join(["", *asserts, ""])}


# Lists on which two different steps give different results, as far as one list of numbers can tell.
PROBES = (
    [7, -3, 4, 12, 0, 9, 5, 5, -8, 2],
    [1, 10, 3, 8, 6, -1],
    [2, 1],
    [6, 9, 4, 7, 3, 8, 5, 2, 1, 0, 10, 11],
    [],
)


def solved(meta: Mapping[str, Any], text: str) -> bool:
    """Whether the program agrees with the canonical one on the probes; interprets it without executing."""
    canonical, candidate = meta["stub"] + meta["answer"], meta["stub"] + text
    name = meta["entry_point"]
    try:
        return all(
            interpreter.call(candidate, name, probe) == interpreter.call(canonical, name, probe) for probe in PROBES
        )
    except (interpreter.Beyond, interpreter.Mistaken):
        return False


def check_step(meta: Mapping[str, Any], done: list[str], line: str) -> float | None:
    """Whether ``line`` does what the next line of the canonical program does, on any result of ``done``.

    None where the line is Python that the interpreter cannot read.
    """
    if len(done) >= len(meta["lines"]):
        return float(not line)
    due = meta["lines"][len(done)]
    if line == due:
        return 1.0
    if not line.startswith("    ") or line[4:5].isspace() or due.startswith("def"):
        return 0.0
    try:
        return float(all(_effect(line, probe) == _effect(due, probe) for probe in PROBES))
    except interpreter.Mistaken:
        return 0.0
    except interpreter.Beyond:
        return None


def _effect(line: str, probe: list[int]) -> tuple[bool, Any]:
    statements = interpreter.parse(line.strip()).body
    if len(statements) != 1:
        raise interpreter.Beyond("more than one statement")
    names = {"xs": list(probe)}
    returned, value = interpreter.execute(statements[0], names)
    return returned, value if returned else names["xs"]
