"""Memory and time of every method's training-step head and objective, against the naive full-logit computation.

Both sides run the method's own objective, weights and survey on the same hidden states, labels and live teacher:
ours through the chunked head of training, the naive side on [tokens, vocabulary] logits of student and teacher and
plain autograd. A side's memory is its peak above the weights and their gradients. Liger's chunked JSD runs at the
same sizes; its Triton kernels do not exist on a CPU, its chunked losses do.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.bench import peers
from harness.bench.measure import Report, Side, in_turns, machine, ratio, spread, stopwatch
from harness.errors import RunFailed

FULL = {"vocab": 151_936, "hidden": 1536, "tokens": 2048}
SMALL = {"vocab": 4_096, "hidden": 64, "tokens": 256}
LEAST = 512  # tokens, below which a naive side that finds no memory is given up
GOALS = {"memory": 0.15, "time": 1.15, "equal": 1e-5}


def run(chosen: Any) -> Report:
    """One row a trainable method and variant, in pairs of fresh processes, one process at a time."""
    sizes = dict(SMALL if chosen.size == "small" else FULL)
    name = "loss" if chosen.hidden in (None, sizes["hidden"]) else f"loss-hidden-{chosen.hidden}"
    sizes["hidden"] = chosen.hidden or sizes["hidden"]
    report = Report(name, f"{__doc__.split(chr(10) * 2)[1].replace(chr(10), ' ')} {sizes}.", machine(chosen.threads))
    rows, names = [], [name for name in trainable() if not chosen.only or name in chosen.only]
    report.raw = {"sizes": sizes, "methods": {}, "goals": GOALS}
    for name in names:
        label, asked, measured = name, sizes, None
        while measured is None:
            try:
                measured = _pairs([("ours", name), ("naive", name)], asked, chosen)
            except RunFailed as error:  # the naive side may ask for more memory than there is
                report.notes.append(f"{label}: not measured: {error}")
                if asked["tokens"] <= LEAST:
                    break
                asked = asked | {"tokens": asked["tokens"] // 2}
                label = f"{name}, {asked['tokens']} tokens"
        if measured is None:
            continue
        report.raw["methods"][label] = measured
        rows.append(_row(label, measured))
        report.tables = [("Against the naive computation of the same method", COLUMNS, rows)]
        report.write(chosen.out)  # hours of work at full size: what is measured is kept
    against = []
    for chunk in (1024, 128) if not chosen.only or "liger" in chosen.only else ():
        sides = [("ours", "jsd"), (f"liger chunk {chunk}", "jsd")]
        measured = _pairs(sides, {**sizes, "chunk": chunk}, chosen, peers.python())
        report.raw[sides[1][0]] = measured
        against.append(_row(f"jsd, Liger's chunk of {chunk}{' (default)' if chunk == 1024 else ''}", measured))
    if against:
        columns = [column.replace("naive", "Liger") for column in COLUMNS]
        report.tables.append(("Against Liger's chunked JSD", columns, against))
    return report


COLUMNS = [
    "method", "memory / naive", "time / naive", "CPU time / naive", "ours MB", "naive MB", "ours s", "naive s",
    "value differs by", "gradients differ by",
]  # fmt: skip


def _pairs(sides: list[tuple[str, str]], sizes: dict, chosen: Any, peer: Path | None = None) -> list:
    """[rounds][2]: fresh processes, since a process keeps the memory it once had."""

    def once(who: str, method: str) -> Callable[[], dict[str, Any]]:
        def turn() -> dict[str, Any]:
            python = peer if peer is not None and who != "ours" else sys.executable
            with Side(__name__, {"who": who, "method": method, **sizes}, python, chosen.threads) as side:
                return side.turn()

        return turn

    return in_turns([once(*side) for side in sides], chosen.rounds)


def _row(name: str, measured: list) -> list[str]:
    ours, naive = measured[0]
    cells = [spread(ratio([(a[key], b[key]) for a, b in measured])) for key in ("bytes", "seconds", "cpu")]
    apart = [abs(ours["value"] - naive["value"]) / max(abs(naive["value"]), 1e-30)]
    apart.append(max(_apart(ours["gradients"][k], naive["gradients"][k]) for k in naive["gradients"]))
    middle = sorted(measured, key=lambda pair: pair[0]["seconds"])[len(measured) // 2]
    cells += [f"{side['bytes'] / 1e6:.0f}" for side in middle] + [f"{side['seconds']:.1f}" for side in middle]
    return [name, *cells, *(f"{value:.1e}" for value in apart)]


def _apart(ours: dict, naive: dict) -> float:
    """Of two gradients, known by random projections and their norm: the distance relative to the norm."""
    squares = [(a - b) ** 2 for a, b in zip(ours["projections"], naive["projections"], strict=True)]
    return (sum(squares) / len(squares)) ** 0.5 / max(naive["norm"], 1e-30)


def trainable() -> list[str]:
    """Every registered method that trains, and its variants but for the shuffled controls."""
    from harness import registry
    from harness.method import ReferencePoint

    names = []
    for entry in registry.entries(registry.METHODS):
        found = registry.find(registry.METHODS, entry.name)
        if not issubclass(found, ReferencePoint):
            names += [entry.name, *(f"{entry.name}@{variant}" for variant in found.variants)]
    return names


def side(spec: dict[str, Any]):
    """The process of one side, see :mod:`harness.bench.measure`."""
    import torch

    torch.set_num_threads(spec["threads"])
    from harness.bench import loss_sides

    work = loss_sides.prepare(spec)

    def turn(asked: dict[str, Any]) -> dict[str, Any]:
        gc.collect()
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        found: dict[str, Any] = {}
        with stopwatch(found):
            value, gradients = work()
        extra = resident("VmHWM") - before - sum(g.numel() * g.element_size() for g in gradients.values())
        return found | {"bytes": extra, "value": value, "gradients": {k: sketch(g) for k, g in gradients.items()}}

    return turn


def sketch(gradient: Any, projections: int = 2) -> dict[str, Any]:
    """A tensor's norm and its products with unit-variance random signs, in float64: enough to tell two apart."""
    import torch

    flat, dice = gradient.flatten(), torch.Generator().manual_seed(0)
    sums = torch.zeros(projections, dtype=torch.float64)
    square = 0.0
    for piece in flat.split(2**22):
        signs = torch.randint(0, 2, (projections, len(piece)), generator=dice, dtype=torch.int8).to(torch.float64)
        piece = piece.double()
        sums += (signs * 2 - 1) @ piece
        square += float(piece @ piece)
    return {"norm": square**0.5, "projections": sums.tolist()}


def resident(line: str) -> int:
    """Bytes of VmRSS (now) or VmHWM (at most) of this process. Raises RunFailed where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        raise RunFailed("the memory of a side is read from /proc, which this system does not have") from None
    return next(int(text.split()[1]) for text in lines if text.startswith(f"{line}:")) * 1024
