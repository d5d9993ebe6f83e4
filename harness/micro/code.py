"""Code: a function on a list of numbers, described step by step, one line of its body per step.

HumanEval's flavour completes a stub (signature and docstring); MBPP's writes the whole function from a
docstring with one assert. Problems and tests are in the files' own formats, so the real graders execute them.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from harness.micro import phrasing
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
        return phrasing.code(self.text)

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
            break  # with at most one number, the step that a number belongs to is clear
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
    return call(source, "f", numbers)


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
        return all(call(candidate, name, probe) == call(canonical, name, probe) for probe in PROBES)
    except (Beyond, Mistaken):
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
    except Mistaken:
        return 0.0
    except Beyond:
        return None


def _effect(line: str, probe: list[int]) -> tuple[bool, Any]:
    statements = parse(line.strip()).body
    if len(statements) != 1:
        raise Beyond("more than one statement")
    names = {"xs": list(probe)}
    returned, value = execute(statements[0], names)
    return returned, value if returned else names["xs"]


# An interpreter for the subset of Python that solves these problems, which executes nothing. It understands one
# list-valued variable worked on line by line: comprehensions over it, slices, sorted, sum and len. That is enough to
# validate a student during training without a sandbox; benchmark scores come from the graders, which do execute.

LIMIT = 10**12  # far above every number of a generated problem

_ARITHMETIC = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Mod: operator.mod}
_COMPARISON = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_FUNCTIONS = {"sorted": sorted, "sum": sum, "len": len, "list": list}


class Beyond(Exception):
    """The text may be valid Python, but is outside the subset."""


class Mistaken(Exception):
    """The text is not Python, or would raise when executed."""


def parse(source: str) -> ast.Module:
    """The tree of ``source``. Raises Mistaken for invalid Python."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Mistaken("no Python") from None


def call(source: str, entry_point: str, argument: list[int]) -> Any:
    """What the function ``entry_point`` of ``source`` returns for ``argument``. Raises Beyond or Mistaken."""
    functions = [n for n in parse(source).body if isinstance(n, ast.FunctionDef) and n.name == entry_point]
    if not functions or len(functions[-1].args.args) != 1:
        raise Mistaken(f"no function {entry_point} of one argument")
    names = {functions[-1].args.args[0].arg: list(argument)}
    for statement in functions[-1].body:
        returned, value = execute(statement, names)
        if returned:
            return value
    return None


def execute(statement: ast.stmt, names: dict[str, Any]) -> tuple[bool, Any]:
    """Executes one statement on ``names``; returns (whether it returned, the value). Raises Beyond or Mistaken."""
    match statement:
        case ast.Assign(targets=[ast.Name(id=name)], value=expression):
            names[name] = value_of(expression, names)
            return False, names[name]
        case ast.Return(value=ast.expr() as expression):
            return True, value_of(expression, names)
        case ast.Expr(value=ast.Constant(value=str())):  # a docstring
            return False, None
    raise Beyond(type(statement).__name__)


def value_of(node: ast.expr, names: dict[str, Any]) -> Any:
    """The value of an expression. Raises Beyond or Mistaken."""
    match node:
        case ast.Constant(value=int() as number):
            return number
        case ast.Name(id=name):
            if name not in names:
                raise Mistaken(f"{name} is not defined")
            return names[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_integer(value_of(operand, names))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _ARITHMETIC:
            a, b = _integer(value_of(left, names)), _integer(value_of(right, names))
            if isinstance(sign, ast.Mod) and b == 0:
                raise Mistaken("modulo zero")
            return _integer(_ARITHMETIC[type(sign)](a, b))
        case ast.Compare(left=left, ops=[sign], comparators=[right]) if type(sign) in _COMPARISON:
            a, b = _integer(value_of(left, names)), _integer(value_of(right, names))
            return _COMPARISON[type(sign)](a, b)
        case ast.ListComp(elt=element, generators=[ast.comprehension(target=ast.Name(id=name)) as loop]):
            items = [names | {name: item} for item in _list(value_of(loop.iter, names))]
            kept = [scope for scope in items if all(value_of(test, scope) for test in loop.ifs)]
            return [value_of(element, scope) for scope in kept]
        case ast.Subscript(value=value, slice=ast.Slice(lower=lower, upper=upper, step=step)):
            bounds = [None if part is None else _integer(value_of(part, names)) for part in (lower, upper, step)]
            if bounds[2] == 0:
                raise Mistaken("slice step zero")
            return _list(value_of(value, names))[slice(*bounds)]
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=keywords) if name in _FUNCTIONS:
            items = _list(value_of(argument, names))
            return _FUNCTIONS[name](items, **_reverse(name, keywords))
    raise Beyond(type(node).__name__)


def _reverse(function: str, keywords: list[ast.keyword]) -> dict[str, bool]:
    match keywords:
        case []:
            return {}
        case [ast.keyword(arg="reverse", value=ast.Constant(value=bool() as flag))] if function == "sorted":
            return {"reverse": flag}
    raise Beyond("keywords")


def _integer(value: Any) -> int:
    if not isinstance(value, int):
        raise Mistaken("a number is wanted")
    if abs(value) > LIMIT:
        raise Beyond("a huge number")
    return value


def _list(value: Any) -> list[int]:
    if not isinstance(value, list) or not all(isinstance(item, int) for item in value):
        raise Mistaken("a list of numbers is wanted")
    return value
