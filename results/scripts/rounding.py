"""Measures how far rounding moves a score: trains published rows again under other CPU kernels.

    python results/scripts/rounding.py run --work DIR [--minutes N]      trains what is missing, one process at a time
    python results/scripts/rounding.py report [--work DIR]               writes results/rounding

A variant forces the kernels that another CPU would choose: ATen's (ATEN_CPU_CAPABILITY), MKL's
(MKL_ENABLE_INSTRUCTIONS, MKL_CBWR) and oneDNN's (ONEDNN_MAX_CPU_ISA), or another number of threads. Everything else
of a row (specification, seed, data, code) is the same, so what differs between variants is rounding alone. ``run``
may be killed at any moment; the same command resumes it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from scipy.stats import f as f_distribution
from scipy.stats import ttest_1samp

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "results" / "micro"
PUBLISHED_NAME = "published"
OUT = ROOT / "results" / "rounding"
STEPS = 200
TASKS = ("humaneval", "amc23", "alpaca_eval")

# What the numbers mean. Review this text whenever they are measured again.
PLAINLY = (
    "A student that trains on its own samples draws another token somewhere, then other texts, and ends where another "
    "seed would. No side is measured to score higher throughout. So rounding is not a source of variance on top of the "
    "seeds but part of the variance between them: an interval over several seeds covers it. The score of one seed is "
    "reproducible on another machine within the spread between seeds only. Not measured: GPUs, bfloat16, and models "
    "beyond the micro world."
)
SOLVED = ("humaneval@micro", "amc23@micro")  # tasks whose score is a share of problems solved

# Environment and settings of each variant. "avx512" is what torch chooses on the machine that measured.
VARIANTS: dict[str, tuple[dict[str, str], tuple[str, ...]]] = {
    "avx512": ({}, ()),
    "avx2": (
        {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
        (),
    ),
    "sse": ({"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "ONEDNN_MAX_CPU_ISA": "SSE41"}, ()),
    "avx512, 2 threads": ({"OMP_NUM_THREADS": "2"}, ("training.threads=2",)),
}
# The cheapest first, so that an early stop leaves complete comparisons.
CELLS = (("kd", 0), ("gkd", 0), ("kd", 1), ("kd", 2), ("gkd", 1), ("vcrd", 0), ("gkd", 2))


def run(work: Path, minutes: float) -> None:
    """Every cell under every variant, as processes of their own, until ``minutes`` have passed."""
    end = time.monotonic() + 60 * minutes
    for method, seed in CELLS:
        for variant in VARIANTS:
            if len(list((work / _folder(variant) / "records").rglob(f"{method}-*-s{seed}-*.json"))) == len(TASKS):
                continue
            if time.monotonic() > end:
                sys.exit("the time is over; the same command goes on")
            began = time.monotonic()
            _one(work, method, seed, variant)
            print(f"{method} seed {seed}, {variant}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def _one(work: Path, method: str, seed: int, variant: str) -> None:
    """One training with its tasks; what is recorded already is returned at once by the harness."""
    forced, settings = VARIANTS[variant]
    command = [sys.executable, "-m", "harness", "run", "--method", method, "--seed", str(seed), "--json"]
    for task in TASKS:
        command += ["--task", task]
    for setting in settings:
        command += ["--set", setting]
    command += ["--results", str(work / _folder(variant))]
    environment = {key: value for key, value in os.environ.items() if key not in _forced_names()}
    done = subprocess.run(
        ["nice", "-n", "10", *command],
        cwd=ROOT,
        env=environment | {"OMP_NUM_THREADS": "1"} | forced,
        stdout=subprocess.DEVNULL,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}")


def _forced_names() -> set[str]:
    return {name for forced, _ in VARIANTS.values() for name in forced}


def _folder(variant: str) -> str:
    return variant.replace(", ", "-").replace(" ", "-")


def collect(work: Path) -> dict[str, Any]:
    """The content of rounding.json: the scores of the runs below ``work`` and of the published records, cell by cell.

    ``seeds`` are the published scores of every seed, so that the page needs no other file. A cell is a method, a seed
    and a task. Of each variant it holds the score, the score of every problem (sorted by id), and how far the training
    loss lies from that of the first variant, at most.
    """
    from harness.leaderboard.inference import problem_scores
    from harness.records import curves
    from harness.records.store import Store

    stores = {PUBLISHED_NAME: Store(PUBLISHED)} | {name: Store(work / _folder(name)) for name in VARIANTS}
    records = {name: {r["run_id"]: r for r in store.all()[0]} for name, store in stores.items()}
    first = next(iter(VARIANTS))
    cells = []
    for run_id, record in sorted(records[first].items(), key=lambda item: _place(item[1])):
        if not all(run_id in records[name] for name in stores):
            continue  # a comparison that was not finished, or no published row
        loss = {
            name: {p["step"]: p["loss"] for p in curves.read(store.root, record["training_id"])}
            for name, store in stores.items()
        }
        variants = {}
        for name, store in stores.items():
            mine = records[name][run_id]
            rows = store.completions(mine)
            scores = problem_scores(rows, mine)
            variants[name] = {
                "score": mine["score"],
                "correct": mine["counts"]["correct"],
                "total": mine["counts"]["total"],
                "scores": [scores[problem] for problem in sorted(scores)],
                "loss_off": max(abs(loss[name][step] - loss[first][step]) for step in loss[first]),
                "texts": hashlib.sha256("\0".join(row["text"] for row in rows).encode()).hexdigest()[:12],
            }
        cells.append(
            {
                "run_id": run_id,
                "method": record["method"]["name"],
                "text": record["convention"]["text"],
                "seed": record["seed"],
                "task": record["task"],
                "variants": variants,
            }
        )
    published = records[PUBLISHED_NAME].values()
    seeds: dict[str, dict[str, list[float]]] = {}
    for method, task in dict.fromkeys((cell["method"], cell["task"]) for cell in cells):
        seeds.setdefault(method, {})[task] = seeds_of(published, method, task)
    machines = {name: next(iter(kept.values()))["provenance"] for name, kept in records.items() if kept}
    wanted = ("cpu", "kernel", "threads", "forced", "commit")
    return {
        "machines": {name: {key: facts.get(key) for key in wanted} for name, facts in machines.items()},
        "torch": sorted({facts["versions"]["torch"] for facts in machines.values()}),
        "forced": {name: forced for name, (forced, _) in VARIANTS.items()},
        "seeds": seeds,
        "cells": cells,
    }


def _place(record: Mapping[str, Any]) -> tuple:
    return record["method"]["name"], record["task"], record["seed"]


def seeds_of(records: Iterable[Mapping[str, Any]], method: str, task: str) -> list[float]:
    """The published scores of a method at 200 steps, one per seed."""
    return [
        r["score"]
        for r in records
        if (r["method"]["name"], r["method"]["variant"], r["task"]) == (method, None, task)
        and r["cost"]["steps"] == 200
    ]


def pooled(groups: Sequence[Sequence[float]]) -> tuple[float, int]:
    """(standard deviation within the groups, its degrees of freedom)"""
    freedom = sum(len(group) - 1 for group in groups)
    squares = sum(float(np.var(group, ddof=1)) * (len(group) - 1) for group in groups)
    return (squares / freedom) ** 0.5, freedom


def spreads(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line a method and task: the spread between variants (one seed's scores) and the spread between seeds."""
    lines = []
    for method, task in dict.fromkeys((cell["method"], cell["task"]) for cell in facts["cells"]):
        cells = [c for c in facts["cells"] if (c["method"], c["task"]) == (method, task)]
        scores = [[side["score"] for side in cell["variants"].values()] for cell in cells]
        rounding, freedom = pooled(scores)
        seeds = facts["seeds"][method][task]
        between, known = pooled([seeds])
        ratio = (rounding / between) ** 2
        flips, pairs = 0, 0
        for cell in cells:
            for a, b in combinations(cell["variants"].values(), 2):
                flips += sum(x != y for x, y in zip(a["scores"], b["scores"], strict=True))
                pairs += len(a["scores"])
        lines.append(
            {
                "method": method,
                "task": task,
                "cells": len(cells),
                "rounding": rounding,
                "freedom": freedom,
                "range": max(max(row) - min(row) for row in scores),
                "seeds": between,
                "n_seeds": len(seeds),
                "p_larger": float(f_distribution.sf(ratio, freedom, known)),
                "flips": flips / pairs,
            }
        )
    return lines


def shifts(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Whether a side is better or worse throughout: its mean paired difference from the other sides.

    The tasks of one training are averaged first, since they share its weights.
    """
    trainings: dict[tuple, list[Mapping[str, Any]]] = {}
    for cell in facts["cells"]:
        trainings.setdefault((cell["method"], cell["seed"]), []).append(cell["variants"])
    rows = []
    for name in facts["cells"][0]["variants"]:
        differences = []
        for tasks in trainings.values():
            gaps = [sides[name]["score"] - fmean(s["score"] for o, s in sides.items() if o != name) for sides in tasks]
            differences.append(fmean(gaps))
        test = ttest_1samp(differences, 0.0)
        low, high = test.confidence_interval(0.95)
        rows.append({"variant": name, "mean": fmean(differences), "low": low, "high": high, "p": test.pvalue})
    return rows


def page(facts: Mapping[str, Any]) -> str:
    """results/rounding/README.md."""
    names = list(facts["cells"][0]["variants"])
    lines = [
        "# How far rounding moves a score",
        "",
        "One specification and one seed, under the kernels of other CPUs. Everything else is the same, so what "
        "differs is rounding. Made by `results/scripts/rounding.py`; every number is computed from `rounding.json`, "
        "which holds the score of every problem.",
        "",
        "## The answer",
        "",
        answer(facts),
        "",
        "## Spread between kernels and between seeds",
        "",
        "Standard deviations of a score in points. *Kernels*: of one seed over the five sides, pooled over the seeds "
        "tried. *Seeds*: over the published seeds on one machine. p: one-sided F test that kernels spread more than "
        "seeds. *Verdicts*: the share of problems whose verdict differs between two sides.",
        "",
        "| method | task | seeds tried | SD kernels | SD seeds | p | widest range | verdicts |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {s['method']} | {s['task']} | {s['cells']} | {100 * s['rounding']:.1f} | {100 * s['seeds']:.1f} | "
        f"{s['p_larger']:.2f} | {100 * s['range']:.1f} | {100 * s['flips']:.0f} % |"
        for s in spreads(facts)
    ]
    lines += [
        "",
        "## Does one side score higher throughout?",
        "",
        "The mean difference from the other four sides in points, over all trainings (their tasks averaged), with its "
        "95 % interval.",
        "",
        "| side | difference | 95 % | p |",
        "| --- | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {s['variant']} | {100 * s['mean']:+.2f} | {100 * s['low']:+.2f} to {100 * s['high']:+.2f} | {s['p']:.2f} |"
        for s in shifts(facts)
    ]
    lines += [
        "",
        "## Every cell",
        "",
        "Problems solved of 150 (a tie is half a win), and by how much the training loss differs from the first "
        "column's at most.",
        "",
        f"| method | seed | task | {' | '.join([*names[1:], names[0]])} | loss off by |",
        f"| --- | ---: | --- | {' | '.join('---:' for _ in names)} | ---: |",
    ]
    for cell in facts["cells"]:
        sides = cell["variants"]
        counts = " | ".join(f"{sides[name]['correct']:g}" for name in [*names[1:], names[0]])
        off = max(side["loss_off"] for side in sides.values())
        lines.append(f"| {cell['method']} | {cell['seed']} | {cell['task']} | {counts} | {off:.2g} |")
    lines += ["", "## The sides", ""]
    for name, machine in facts["machines"].items():
        forced = ", ".join(f"`{k}={v}`" for k, v in facts["forced"].get(name, {}).items()) or "nothing forced"
        commit = (machine["commit"] or "unknown")[:7]
        lines.append(f"- **{name}**: {machine['cpu']}, {forced}, commit {commit}")
    lines += [
        "",
        f"torch {', '.join(facts['torch'])}; MKL computes the matrix products. `{names[0]}` is results/micro; "
        "its code is older than that of the other sides, which share one commit.",
        "",
    ]
    return "\n".join(lines)


@dataclass(frozen=True)
class TextKind:
    """The methods that train on one kind of text: pooled spreads of their scores, as fractions of one."""

    name: str
    methods: tuple[str, ...]
    rounding: float
    seeds: float
    widest: float


def kinds(facts: Mapping[str, Any]) -> list[TextKind]:
    """Fixed text and the student's own, over the tasks whose score is a share of problems solved."""
    of_texts = []
    for name, own in (("fixed text", False), ("the student's own samples", True)):
        methods = sorted({cell["method"] for cell in facts["cells"] if ("student" in cell["text"]) == own})
        mine = [s for s in spreads(facts) if s["method"] in methods and s["task"] in SOLVED]
        rounding = (sum(s["rounding"] ** 2 * s["freedom"] for s in mine) / sum(s["freedom"] for s in mine)) ** 0.5
        seeds = fmean(s["seeds"] ** 2 for s in mine) ** 0.5
        of_texts.append(TextKind(name, tuple(methods), rounding, seeds, max(s["range"] for s in mine)))
    return of_texts


def answer(facts: Mapping[str, Any]) -> str:
    """The finding in words, with its numbers."""
    sentences = [
        f"Trained on {kind.name} ({', '.join(kind.methods)}), a score of {' or '.join(SOLVED)} moves by "
        f"{100 * kind.rounding:.1f} points (SD) from kernel to kernel and by {100 * kind.seeds:.1f} from seed to seed; "
        f"the widest range of one seed over the kernels is {100 * kind.widest:.1f} points."
        for kind in kinds(facts)
    ]
    return " ".join([*sentences, PLAINLY])


def report(work: Path | None) -> None:
    """Writes rounding.json from ``work``, where that is given, and the page from rounding.json."""
    OUT.mkdir(parents=True, exist_ok=True)
    kept = OUT / "rounding.json"
    if work is not None:
        kept.write_text(json.dumps(collect(work), separators=(",", ":")) + "\n", "utf-8")
    (OUT / "README.md").write_text(page(json.loads(kept.read_text("utf-8"))), "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "report"))
    parser.add_argument("--work", type=Path, help="folder of the runs, one results folder a variant")
    parser.add_argument("--minutes", type=float, default=60.0, help="start no training after so long")
    chosen = parser.parse_args()
    if chosen.what == "report":
        report(chosen.work)
    elif chosen.work is None:
        parser.error("run needs --work DIR")
    else:
        run(chosen.work, chosen.minutes)


if __name__ == "__main__":
    main()
