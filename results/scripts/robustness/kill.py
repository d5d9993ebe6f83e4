"""Kills a run with SIGKILL repeatedly, resumes it with the same command, and compares the end with an undisturbed run.

    python -m results.scripts.robustness.kill --points 60 --seed 0 --out results/robustness/kill.md

Moments are drawn within calls of every stage, from how long such calls took, and among file operations. Every trial
is killed at one to three points, one after the other. At its end weights, completions and records must be those of
the undisturbed run, bit for bit except for times, and no process and no scratch file may be left over. Runs are forked
from one warm process, to save the imports.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from results.scripts.robustness import world
from results.scripts.robustness.forked import Killer, KillTrial, Point, Trace


def draw(trace: Trace, points: int, seed: int) -> list[list[Point]]:
    """At least ``points`` kill points in trials of one to three: stages in turn, every fourth a file operation."""
    chance = random.Random(seed)
    stages = [stage for stage, calls in trace.calls.items() if calls]
    places = [p for stage in stages for p in (stage, stage, stage, "file")]
    trials: list[list[Point]] = []
    made = 0
    turn = chance.sample(stages, len(stages)) + chance.sample(places, len(places))
    while made < points:
        trial = []
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            stage = turn[made % len(turn)]
            made += 1
            if stage == "file":
                trial.append(Point(stage, chance.randint(1, trace.operations)))
            else:
                number = chance.randint(1, len(trace.calls[stage]))
                # a little beyond the call, so that moments right after it are drawn as well
                longest = 1.2 * trace.calls[stage][number - 1] + 0.002
                trial.append(Point(stage, number, chance.uniform(0, longest)))
        trials.append(trial)
    return trials


def report(trials: Sequence[KillTrial], trace: Trace, questions: int, seed: int, method: str) -> str:
    """The page: totals by stage, then every trial."""
    points = [(p, hit) for t in trials for p, hit in zip(t.points, t.reached, strict=True)]
    kills, bad = sum(hit for _, hit in points), [t for t in trials if t.faults]
    lines = [
        "# Runs killed at random moments",
        "",
        f"`python -m results.scripts.robustness.kill --method {method} --points {len(points)} --seed {seed}`: "
        f"{len(trials)} runs of {', '.join(world.TASKS)} were killed {kills} times with SIGKILL "
        f"({len(points) - kills} points were not reached: their run had ended). {len(trials) - len(bad)} ended with "
        "the weights, completions and records of the undisturbed run, bit for bit except for times; "
        f"{len(bad)} did not. The judge was asked {questions} questions in all (an undisturbed run asks "
        f"{trace.questions}; {trace.questions * len(trials)} without kills).",
        "",
        "| stage | calls in a run | seconds in a run | kills |",
        "| --- | ---: | ---: | ---: |",
    ]
    for stage, calls in trace.calls.items():
        hits = sum(hit for p, hit in points if p.stage == stage)
        lines.append(f"| {stage} | {len(calls)} | {sum(calls):.2f} | {hits} |")
    hits = sum(hit for p, hit in points if p.stage == "file")
    lines += [
        f"| file operations | {trace.operations} | | {hits} |",
        "",
        "| trial | killed | outcome |",
        "| ---: | --- | --- |",
    ]
    for number, trial in enumerate(trials):
        killed = "; ".join(
            str(p) + ("" if hit else " (not reached)") for p, hit in zip(trial.points, trial.reached, strict=True)
        )
        lines.append(f"| {number} | {killed} | {'; '.join(trial.faults) or 'the same'} |")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    words = argparse.ArgumentParser(
        prog="python -m results.scripts.robustness.kill", description=__doc__.split("\n\n")[0]
    )
    words.add_argument("--points", type=int, default=60, help="kill points in all (default: 60)")
    words.add_argument("--seed", type=int, default=0, help="of the points (default: 0)")
    words.add_argument("--method", default=world.METHOD, help=f"that trains (default: {world.METHOD})")
    words.add_argument("--task", action="append", default=[], help="repeatable (default: one of each kind)")
    words.add_argument("--out", type=Path, help="write the page here as well")
    chosen = words.parse_args(arguments)

    import torch

    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="harness-kill-"))
    killer = Killer(folder, chosen.method, chosen.task or world.TASKS)
    try:
        killer.warm()
        trace = killer.undisturbed()
        before, trials = killer.questions_asked(), []
        for number, points in enumerate(draw(trace, chosen.points, chosen.seed)):
            trials.append(killer.trial(f"trial{number}", points, trace))
            places = "; ".join(map(str, points))
            print(
                f"{number}: {places}: {'; '.join(trials[-1].faults) or 'the same'} ({trials[-1].seconds:.0f} s)",
                flush=True,
            )
            if not trials[-1].faults:
                shutil.rmtree(folder / f"trial{number}")
        page = report(trials, trace, killer.questions_asked() - before, chosen.seed, chosen.method)
    finally:
        killer.close()
    if chosen.out:
        chosen.out.parent.mkdir(parents=True, exist_ok=True)
        chosen.out.write_text(page, "utf-8")
    print(page)
    if any(trial.faults for trial in trials):
        print(f"the results of the failed trials are in {folder}", file=sys.stderr)
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
