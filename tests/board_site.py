"""A small board with everything on it that could go wrong: strangers' text, two protocols, two attempts, papers."""

from pathlib import Path

from sample_records import make_record, make_rows

from harness.records import curves
from harness.records.store import Store
from harness.reports.board import site

ATTACK = (
    "\n</pre></script><script>window.pwned = 1</script><img src=x onerror='window.pwned = 2'>\n"
    "<!-- \u2028 ${1+1} {{ 7*7 }}"
)
SURROGATE = "half a \ud83d sign"
SCORES = {
    "vcrd": (1, 0, 1, 1, 0, 1),
    "kd": (1, 1, 0, 1, 0, 0),
    "sft": (0, 0, 1, 1, 0, 0),
    "untouched": (0, 0, 0, 1, 0, 0),
}


def results(root: Path) -> Store:
    """Four methods and two seeds on two tasks, one of them under two protocols, and a repeated run."""
    store = Store(root)
    for method, scores in SCORES.items():
        for seed in (0, 1):
            for task, family, world in (("humaneval@micro", "code", "micro"), ("amc23", "maths", "real")):
                add(store, method, seed, scores[seed:] + scores[:seed], task=task, family=family, world=world)
    add(store, "kd", 0, SCORES["kd"], attempt=1)
    add(
        store,
        "sft",
        0,
        (1, 1, 1, 1, 1, 1),
        task="amc23",
        family="maths",
        world="real",
        protocol={"decoding": "sampled"},
    )
    return store


def add(store, method, seed, scores, task="humaneval@micro", **changes):
    scores = tuple(map(float, scores))
    rows = make_rows(scores)
    rows[0] |= {"text": ATTACK, "reason": ATTACK, "extracted": ATTACK}
    rows[1] |= {"text": SURROGATE, "problem_id": "<b>p1</b>"}
    rows[2] |= {"text": "long " * 5000, "finish": "length"}
    family, world = changes.pop("family", "code"), changes.pop("world", "micro")
    record = make_record(method, task, seed, scores, **changes)
    cost = record["cost"] | {"seconds": 10.0 * len(method), "teacher_forward_tokens": 0 if method == "sft" else 1000}
    if method != "untouched":  # the field may be missing
        record["first_prompt"] = "\n  Exactly <this>\n"
    record |= {"family": family, "world": world, "cost": cost}
    store.add(record, rows)
    if method != "untouched":
        points = [{"step": i + 1, "seconds": float(i), "loss": 1 / (i + seed + 1), "on_policy": 0.5} for i in range(30)]
        curves.keep(store.root, record["training_id"], method, seed, points)


def fact(value, status="known"):
    return {"value": value, "status": status, "source": "the paper's table"}


PAPER = {
    "id": "vcrd", "method": "vcrd", "title": "A paper", "url": "https://example.org/paper", "about": "", "notes": [],
    "year": 2026, "authors": [], "cells": [
        {"id": "c", "task": "amc23", "dataset": "AMC23", "family": "maths", "metric": fact("accuracy"),
         "value": fact(35.0), "n": fact(40, "deduced"), "count": fact(14, "deduced"), "decoding": fact(None, "unknown"),
         "judge": fact(None), "student": fact("<i>student</i>"), "teacher": fact(None, "unknown")}
    ],
}  # fmt: skip


def build(folder: Path) -> Path:
    """The board of :func:`results`, below ``folder``."""
    built = site.build(results(folder / "results"), folder / "board", [PAPER])
    assert built.pages == 24 and built.reused == 0  # 18 records, 3 tasks with their protocols, and the other three
    assert not built.warnings
    return folder / "board"
