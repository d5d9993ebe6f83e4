"""Grades random damaged completions: no crash, no hang, no process left behind.

    python -m results.scripts.grading.fuzz --n 100000 --seed 0 > results/grading/fuzz.md

Every completion is drawn from the seed, so that each can be reproduced. The problems are those of the micro
world and of the benchmarks whose files are on this machine. One in :data:`BOMB_EVERY` is a bomb: it costs seconds.
``--of`` names a family of :mod:`results.scripts.grading.fuzz_families`: notations, files, mistakes,
judges, records, values.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

from harness import data, registry
from harness.evaluation.benchmarks import locate, open_task
from harness.evaluation.known_answers import fenced
from harness.grading.maths.pool import shared_pool
from harness.sandbox import shared, tier
from harness.task import Task
from harness.types import Completion, Problem, Verdict
from results.scripts.grading.fuzz_families import FAMILIES
from results.scripts.grading.fuzz_families import page as family_page
from results.scripts.grading.fuzz_texts import BOMBS, GENTLE_BOMBS, KINDS

GRADED = ("maths", "code")
CHUNK = 500
BOMB_EVERY = 1000
EACH = 100  # trials between two lines of progress
HANG_S = 3600  # a chunk that takes longer ends the run with a traceback


class Broken(AssertionError):
    """A verdict that breaks a promise; the message names the completion."""


def open_tasks() -> list[Task]:
    """The available tasks: generated problems where there are any, real ones where their files are."""
    from harness.micro.world import SAME_PROBLEMS
    from harness.micro.world import TASKS as GENERATED

    known = {entry.name: locate(entry.name)[0] for entry in registry.entries(registry.TASKS)}
    # A harder version of a task asks the same problems.
    graded = [name for name, task in known.items() if task.family in GRADED and name not in SAME_PROBLEMS]
    names = [f"{name}@micro" for name in graded if name in GENERATED]
    names += [f"{name}@real" for name in graded if data.at_hand(known[name].dataset)]
    return [open_task(name) for name in names]


def draw(tasks: Sequence[Task], n: int, seed: int, bombs: Sequence[str]) -> Iterator[tuple[Task, str, Completion]]:
    """``n`` completions: task, kind, completion. The ``i``-th depends on ``seed`` and ``i`` alone."""
    for i in range(n):
        rng = Random(f"{seed}/{i}")
        task = tasks[i % len(tasks)]
        problem = rng.choice(task.items)
        if i % BOMB_EVERY == BOMB_EVERY - 1:
            kind = bombs[i // BOMB_EVERY % len(bombs)]
            text = BOMBS[kind].replace("NAME", getattr(problem.reference, "entry_point", "f"))
        else:
            kind = rng.choice(list(KINDS))
            text = KINDS[kind](rng, right_answer(task, problem))
        yield task, kind, Completion(problem.id, i, text, 0, "stop")


def right_answer(task: Task, problem: Problem) -> str:
    """A completion that is graded right, to be damaged."""
    if task.family == "maths":
        return task.gold_completion(problem)
    return fenced(problem.reference.prompt + problem.reference.canonical_solution)


def fuzz(
    tasks: Sequence[Task],
    n: int,
    seed: int,
    bombs: Sequence[str] = tuple(BOMBS),
    progress: Callable[[int], None] = lambda done: None,
    family: str | None = None,
) -> Counter[tuple[str, str, str]]:
    """Counts every (family, kind, outcome), of ``family`` alone where one is named.

    Raises Broken for a verdict that breaks a promise.
    """
    outcomes: Counter[tuple[str, str, str]] = Counter()
    done = 0
    for piece in _pieces(drawn for drawn in draw(tasks, n, seed, bombs) if family in (None, drawn[0].family)):
        faulthandler.dump_traceback_later(HANG_S, exit=True)
        for task in tasks:
            mine = [(kind, completion) for of_task, kind, completion in piece if of_task is task]
            verdicts = task.grade_all([completion for _, completion in mine])
            if len(verdicts) != len(mine):
                raise Broken(f"{task.title}: {len(verdicts)} verdicts on {len(mine)} completions")
            for (kind, completion), verdict in zip(mine, verdicts, strict=True):
                _check(task, completion, verdict)
                outcome = "no verdict" if verdict.error else "right" if verdict.score else "wrong"
                outcomes[task.family, kind, outcome] += 1
        faulthandler.cancel_dump_traceback_later()
        done += len(piece)
        progress(done)
    return outcomes


def _pieces(drawn: Iterator[tuple[Task, str, Completion]]) -> Iterator[list[tuple[Task, str, Completion]]]:
    piece = []
    for item in drawn:
        piece.append(item)
        if len(piece) == CHUNK:
            yield piece
            piece = []
    if piece:
        yield piece


def _check(task: Task, completion: Completion, verdict: Verdict) -> None:
    """Raises Broken unless the verdict keeps what every verdict promises."""
    fine = (
        (verdict.problem_id, verdict.sample) == (completion.problem_id, completion.sample)
        and verdict.score in (0.0, 1.0)
        and not (verdict.error and verdict.score)
        and verdict.reason
        and json.dumps([verdict.reason, verdict.extracted])
    )
    if not fine:
        raise Broken(f"{task.title}, completion {completion.sample}: {verdict}")


def descendants(pid: int | None = None) -> list[int]:
    """Every process below this one."""
    processes = []
    for task in Path(f"/proc/{pid or os.getpid()}/task").iterdir():
        try:
            children = [int(word) for word in (task / "children").read_text().split()]
        except OSError:
            continue
        for child in children:
            processes.append(child)
            try:
                processes += descendants(child)
            except OSError:
                continue
    return processes


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m results.scripts.grading.fuzz", description=__doc__.split("\n")[0])
    parser.add_argument("--n", type=int, default=2000, help="completions (default: 2000)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--gentle", action="store_true", help="only bombs that cost no seconds")
    parser.add_argument("--family", choices=("maths", "code"), help="only the completions of these tasks")
    parser.add_argument("--of", choices=("completions", *FAMILIES), default="completions", help="what is fuzzed")
    chosen = parser.parse_args(words)
    began = time.monotonic()

    def progress(done: int) -> None:
        if done % EACH and done != chosen.n:
            return
        print(f"{done} of {chosen.n}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)

    if chosen.of != "completions":
        written, faults = family_page(chosen.of, chosen.n, chosen.seed, progress)
        print(written)
        return int(bool(faults))
    tasks = open_tasks()
    outcomes = fuzz(
        tasks, chosen.n, chosen.seed, GENTLE_BOMBS if chosen.gentle else tuple(BOMBS), progress, chosen.family
    )
    waiting = len(descendants())
    shared().close()
    shared_pool().close()
    left = descendants()
    print(page(outcomes, tasks, chosen.n, chosen.seed, str(tier()), time.monotonic() - began, waiting, left))
    return int(bool(left))


def page(
    outcomes: Counter[tuple[str, str, str]],
    tasks: Sequence[Task],
    n: int,
    seed: int,
    walls: str,
    seconds: float,
    waiting: int,
    left: Sequence[int],
) -> str:
    """The log of a run, as Markdown."""
    lines = [
        f"# {sum(outcomes.values()):,} fuzzed completions",
        "",
        f"`python -m results.scripts.grading.fuzz --n {n} --seed {seed}`, {seconds:.0f} s, {walls}.",
        f"Tasks in turn: {', '.join(task.title for task in tasks)}.",
        "",
        f"Every completion got a verdict: no crash, no hang. {waiting} processes of the graders' pools were waiting",
        f"at the end; after the pools were closed {len(left)} processes were left.",
        "",
        "| family | kind | right | wrong | no verdict |",
        "|---|---|---:|---:|---:|",
    ]
    for family, kind in sorted({key[:2] for key in outcomes}):
        counts = (outcomes[family, kind, outcome] for outcome in ("right", "wrong", "no verdict"))
        lines.append(f"| {family} | {kind} | " + " | ".join(f"{count:,}" for count in counts) + " |")
    lines += [
        "",
        "Those graded right are right answers with harmless damage: a cut in the closing words, a changed comment.",
        "A maths answer of huge numbers or deep nesting is right where it equals the gold: a number over itself",
        "is 1, and so is 1 after an even number of signs or in matching brackets; odd signs make -1.",
        "`no verdict`: a comparison that hit its CPU or memory limit; it affects one item and counts as wrong.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
