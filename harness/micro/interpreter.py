"""Interprets the subset of Python that solves generated code problems, without executing it.

It understands one list-valued variable worked on line by line: comprehensions over it, slices, ``sorted``,
``sum`` and ``len``. That is enough to validate a student during training without a sandbox; benchmark scores
come from the graders, which do execute.
"""

from __future__ import annotations

import ast
import operator
from typing import Any

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
    """The text may be valid Python, but lies outside the subset."""


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
            names[name] = evaluate(expression, names)
            return False, names[name]
        case ast.Return(value=ast.expr() as expression):
            return True, evaluate(expression, names)
        case ast.Expr(value=ast.Constant(value=str())):  # a docstring
            return False, None
    raise Beyond(type(statement).__name__)


def evaluate(node: ast.expr, names: dict[str, Any]) -> Any:
    """The value of an expression. Raises Beyond or Mistaken."""
    match node:
        case ast.Constant(value=int() as number):
            return number
        case ast.Name(id=name):
            if name not in names:
                raise Mistaken(f"{name} is not defined")
            return names[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_integer(evaluate(operand, names))
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _ARITHMETIC:
            a, b = _integer(evaluate(left, names)), _integer(evaluate(right, names))
            if isinstance(sign, ast.Mod) and b == 0:
                raise Mistaken("modulo zero")
            return _integer(_ARITHMETIC[type(sign)](a, b))
        case ast.Compare(left=left, ops=[sign], comparators=[right]) if type(sign) in _COMPARISON:
            a, b = _integer(evaluate(left, names)), _integer(evaluate(right, names))
            return _COMPARISON[type(sign)](a, b)
        case ast.ListComp(elt=element, generators=[ast.comprehension(target=ast.Name(id=name)) as loop]):
            items = [names | {name: item} for item in _list(evaluate(loop.iter, names))]
            kept = [scope for scope in items if all(evaluate(test, scope) for test in loop.ifs)]
            return [evaluate(element, scope) for scope in kept]
        case ast.Subscript(value=value, slice=ast.Slice(lower=lower, upper=upper, step=step)):
            bounds = [None if part is None else _integer(evaluate(part, names)) for part in (lower, upper, step)]
            if bounds[2] == 0:
                raise Mistaken("slice step zero")
            return _list(evaluate(value, names))[slice(*bounds)]
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=keywords) if name in _FUNCTIONS:
            items = _list(evaluate(argument, names))
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
