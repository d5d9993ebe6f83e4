"""Values that a program claims to have returned: tagged texts of any shape, true and damaged.

Promises: the trusted side accepts a claim only where it is the expected value, refuses any other with False or
ValueError, describes it in one printable line, and spends little time on it, whatever the result channel holds.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from random import Random
from typing import Any

from harness.evaluation.benchmarks import open_task
from harness.grading.code.differential import accepts, shown_value
from harness.sandbox.values import can_be_sent, dumps
from results.scripts.grading.fuzz_families import Trial

LIMIT_S = 2.0  # CPU time of one claim
EXPECTED: tuple[Any, ...] = (
    0, 1, True, -1, 10**30, 0.5, float("inf"), "", "abc", "\u202e", None, [], [1, 2, 3], [[1], [2.5]], (1, 2), {1, 2},
    frozenset({(1, 2)}), {"a": [1, {"b": None}]}, {1: 2}, 1 + 2j, b"ab", [0.1] * 50, list(range(200)), {(1, 2): {3}},
)  # fmt: skip
PLAIN = (
    "0", "-1", "1.0", "1e999", "true", "null", '"\\u202e"', '"\\ud800"', '""', str(2**61 - 1), "9" * 400, "0.1",
    '{"int":"0x1fffffffffffffff"}', '{"int":"-0x10"}', '{"int":""}', '{"float":"nan"}', '{"float":"1"}',
    '{"match":null}', '{"digest":"list of 3 ab"}', '{"bytes":"6162"}', '{"bytes":"zz"}', '{"complex":[1,2]}',
    '{"complex":["a",1]}',
)  # fmt: skip
TAGS = ("set", "frozenset", "tuple", "deque", "dict", "Counter", "OrderedDict", "iterated", "complex", "numpy", "other")
SAME_HASH = [json.dumps({"int": hex(i * (2**61 - 1))}) for i in range(3000)]


def trials(n: int, seed: int) -> Iterator[Trial]:
    problem = open_task("humaneval@micro").items[0].reference
    for i in range(n):
        rng = Random(f"{seed}/{i}")
        expected = rng.choice(EXPECTED)
        kind, text = _claim(rng, expected)
        began = time.process_time()
        outcome, fault = _read(problem, expected, text)
        if (took := time.process_time() - began) > LIMIT_S:
            fault = fault or f"took {took:.1f} s"
        yield Trial(kind, outcome, fault=f"{fault}: {text[:80]!r} for {expected!r:.60} (trial {i})" if fault else "")


def _read(problem: Any, expected: Any, text: str) -> tuple[str, str]:
    """What the trusted side makes of a claim, and the promise that it broke."""
    got = text.encode("utf-8", "surrogatepass")
    try:
        shown = shown_value(got)
        if len(shown) > 80 or not shown.isprintable():
            return "shown", f"is described by {shown[:100]!r}"
        can_be_sent(text)
        right = accepts(problem, "[[1],[2]]", dumps(expected).encode(), got)
    except ValueError as error:
        return "refused", "" if str(error).isprintable() and len(str(error)) < 500 else "refused in odd words"
    except Exception as error:  # any other is a fault
        return "raises", f"{type(error).__name__}: {error}"
    if right and not _is(expected, text):
        return "accepted", "another value is accepted"
    return ("accepted" if right else "wrong"), ""


def _is(expected: Any, text: str) -> bool:
    """Whether a text is what is expected, read here without the harness: as plain data whose numbers are compared."""
    return _data(json.loads(text)) == _data(json.loads(dumps(expected)))


def _data(value: Any) -> Any:
    if isinstance(value, dict):
        (tag,) = value
        content = value[tag]
        if tag in ("tuple", "deque"):
            return [_data(item) for item in content]
        if tag in ("set", "frozenset", "dict", "Counter", "OrderedDict"):
            return tag in ("set", "frozenset"), sorted(repr(_data(item)) for item in dict.fromkeys(map(repr, content)))
        if tag == "int":
            return int(content, 16)
        return tag, _data(content)
    if isinstance(value, list):
        return [_data(item) for item in value]
    return float(value) if isinstance(value, int | float) and abs(value) < 2**53 else value


def _claim(rng: Random, expected: Any) -> tuple[str, str]:
    true = dumps(expected)
    kind = rng.choice(["true", "spoilt", "cut", "another value", "built", "deep", "wide", "keys of one hash"])
    if kind == "true":
        return kind, true
    if kind == "spoilt":
        made = list(true)
        for _ in range(rng.randrange(1, 4)):
            made[rng.randrange(len(made))] = rng.choice('"[]{},:0189e-.\\ux')
        return kind, "".join(made)
    if kind == "cut":
        return kind, true[: rng.randrange(len(true))]
    if kind == "another value":
        return kind, dumps(rng.choice(EXPECTED))
    if kind == "built":
        return kind, _value(rng, 4)
    if kind == "deep":
        opening, closing = rng.choice(
            [("[", "]"), ('{"tuple":[', "]}"), ('{"frozenset":[', "]}"), ('{"dict":[[1,', "]]}")]
        )
        depth = int(10 ** rng.uniform(1, 5))
        return kind, opening * depth + rng.choice(PLAIN) + closing * rng.choice([depth, depth - 1])
    if kind == "wide":
        items = [rng.choice(PLAIN)] * int(10 ** rng.uniform(2, 5))
        return kind, rng.choice(['{{"set":[{}]}}', '{{"tuple":[{}]}}', "[{}]", '{{"iterated":[{}]}}']).format(
            ",".join(items)
        )
    keys = [f"[{key},0]" for key in SAME_HASH] if rng.random() < 0.5 else SAME_HASH
    return kind, f'{{"{rng.choice(TAGS)}":[{",".join(keys)}]}}'


def _value(rng: Random, depth: int) -> str:
    if not depth or rng.random() < 0.25:
        return rng.choice(PLAIN)
    inner = [_value(rng, depth - 1) for _ in range(rng.choice([0, 1, 2, 2, 3, 40 if depth == 1 else 3]))]
    listed = f"[{','.join(inner)}]"
    dtype = rng.choice(["<i8", "<f4", "|b1", "<U3", "|O", "<M8[s]", "<f16", "x"])
    shape = rng.choice(["null", "[]", "[1]", "[2,1]", "[4294967295,0]", "[-1]", "[1e9]", listed])
    content = rng.choice(['"00"', '"0000000000000000"', '["abc"]', listed, "7"])
    pairs = f"[{','.join(f'[{key},{item}]' for key, item in zip(inner, inner[::-1], strict=True))}]"
    return rng.choice(
        [
            listed,
            f'{{"{rng.choice(TAGS)}":{rng.choice([listed, pairs])}}}',
            f'{{"numpy":[{json.dumps(dtype)},{shape},{content}]}}',
            f'{{"set":1,"tuple":{listed}}}',
            f'{{"{rng.choice(TAGS)}":{rng.choice(PLAIN)}}}',
        ]
    )
