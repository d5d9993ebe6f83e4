"""Memory and time of every method's training-step head and objective, against the naive full-logit computation.

Both sides run the method's own objective, weights and sequence features on the same hidden states, labels and teacher:
ours through the chunked head of training, the naive side on [tokens, vocabulary] logits of student and teacher and
plain autograd. A side's memory is its peak above the weights and their gradients. Liger's chunked JSD runs at the
same sizes; its Triton kernels do not exist on a CPU, its chunked losses do.
"""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.errors import RunFailed
from results.scripts.bench import peers
from results.scripts.bench.measure import BenchReport, Side, in_turns, ratio, spread, stopwatch

FULL = {"vocab": 151_936, "hidden": 1536, "tokens": 2048}
SMALL = {"vocab": 4_096, "hidden": 64, "tokens": 256}
LEAST = 512  # tokens, below which a naive side that runs out of memory is given up
GOALS = {"memory": 0.15, "time": 1.15, "equal": 1e-5}


def run(chosen: Any) -> BenchReport:
    """One row a trainable method and variant, in pairs of fresh processes, one process at a time.

    Writes every row as soon as it is measured; with ``--only`` the other rows of an earlier table stay.
    """
    sizes = dict(SMALL if chosen.size == "small" else FULL)
    requested = {"hidden": chosen.hidden, "tokens": chosen.tokens}
    others = {key: size for key, size in requested.items() if size not in (None, sizes[key])}
    sizes |= others
    title = "-".join(["loss", *(f"{key}-{size}" for key, size in others.items())])
    report = BenchReport.of(title, __doc__, chosen.threads)
    report.what += f" {sizes}."
    report.raw = {"sizes": sizes, "methods": {}, "liger": {}, "goals": GOALS}
    if chosen.only:
        _recall(report, chosen)
    for name in trainable():
        if not chosen.only or name in chosen.only:
            _against_naive(report, name, chosen)
            _lay_out(report).write(chosen.out)
    for chunk in (1024, 128) if not chosen.only or "liger" in chosen.only else ():
        label = f"jsd, Liger's chunk of {chunk}{' (default)' if chunk == 1024 else ''}"
        sides = [("ours", "jsd"), (f"liger chunk {chunk}", "jsd")]
        report.raw["liger"][label] = _pairs(sides, {**sizes, "chunk": chunk}, chosen, peers.python())
        _lay_out(report).write(chosen.out)
    return report


COLUMNS = [
    "method", "memory / naive", "time / naive", "CPU time / naive", "ours MB", "naive MB", "ours s", "naive s",
    "value differs by", "gradients differ by",
]  # fmt: skip


def _lay_out(report: BenchReport) -> BenchReport:
    """The tables of the rows measured so far."""
    report.tables = []
    for key, title, other in (
        ("methods", "Against the naive computation of the same method", "naive"),
        ("liger", "Against Liger's chunked JSD", "Liger"),
    ):
        if rows := [_row(*item) for item in sorted(report.raw[key].items())]:
            report.tables.append((title, [column.replace("naive", other) for column in COLUMNS], rows))
    return report


def _recall(report: BenchReport, chosen: Any) -> None:
    """Keeps the rows of an earlier table of the same sizes and machine, except those to be measured now."""
    path = chosen.out / f"{report.name}.json"
    if not path.is_file():
        return
    earlier = json.loads(path.read_text("utf-8"))
    known = [{**one, "load_average_at_start": None} for one in (earlier["machine"], report.machine)]
    if earlier["raw"]["sizes"] != report.raw["sizes"] or known[0] != known[1]:
        return
    kept = earlier["raw"]["methods"].items()
    report.raw["methods"] = {label: rounds for label, rounds in kept if label.split(",")[0] not in chosen.only}
    report.raw["liger"] = {} if "liger" in chosen.only else earlier["raw"].get("liger", {})
    report.notes = [note for note in earlier["notes"] if note.split(":")[0].split(",")[0] not in chosen.only]


def _against_naive(report: BenchReport, name: str, chosen: Any) -> None:
    """Measures one method; halves the tokens where the naive side runs out of memory."""
    label, sizes = name, report.raw["sizes"]
    while True:
        try:
            report.raw["methods"][label] = _pairs([("ours", name), ("naive", name)], sizes, chosen)
            return
        except RunFailed as error:
            report.notes.append(f"{label}: not measured: {error}")
        if sizes["tokens"] <= LEAST:
            return
        sizes = sizes | {"tokens": sizes["tokens"] // 2}
        label = f"{name}, {sizes['tokens']} tokens"


def _pairs(sides: list[tuple[str, str]], sizes: dict, chosen: Any, peer: Path | None = None) -> list:
    """[rounds][2]: each side in a fresh process, since a process does not return freed memory to the system."""

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
    """Distance of two gradients relative to their norm, from random projections (:func:`sketch`)."""
    squares = [(a - b) ** 2 for a, b in zip(ours["projections"], naive["projections"], strict=True)]
    return (sum(squares) / len(squares)) ** 0.5 / max(naive["norm"], 1e-30)


def trainable() -> list[str]:
    """Every registered method that trains, and its variants except the shuffled controls."""
    from harness import registry
    from harness.method import ReferencePoint

    names = []
    for entry in registry.entries(registry.METHODS):
        method_class = registry.find(registry.METHODS, entry.name)
        if not issubclass(method_class, ReferencePoint):
            names += [entry.name, *(f"{entry.name}@{variant}" for variant in method_class.variants)]
    return names


def side(spec: dict[str, Any]):
    """The process of one side, see :mod:`results.scripts.bench.measure`."""
    import torch

    torch.set_num_threads(spec["threads"])
    from results.scripts.bench import loss_sides

    work = loss_sides.prepare(spec)

    def turn(request: dict[str, Any]) -> dict[str, Any]:
        gc.collect()
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the peak of resident memory
        report: dict[str, Any] = {}
        with stopwatch(report):
            value, gradients = work()
        extra = resident("VmHWM") - before - sum(g.numel() * g.element_size() for g in gradients.values())
        return report | {"bytes": extra, "value": value, "gradients": {k: sketch(g) for k, g in gradients.items()}}

    return turn


def sketch(gradient: Any, projections: int = 8) -> dict[str, Any]:
    """A tensor's norm and its products with random signs u v^T, in float64: enough to detect a difference."""
    import torch

    matrix, dice = gradient.reshape(len(gradient), -1), torch.Generator().manual_seed(0)
    signs = [torch.randint(0, 2, (projections, n), generator=dice).double() * 2 - 1 for n in matrix.shape]
    sums, square, row = torch.zeros(projections, dtype=torch.float64), 0.0, 0
    for piece in matrix.split(4096):
        piece = piece.double()
        sums += ((signs[0][:, row : row + len(piece)] @ piece) * signs[1]).sum(1)
        square += float(piece.square().sum())
        row += len(piece)
    return {"norm": square**0.5, "projections": sums.tolist()}


def resident(line: str) -> int:
    """Bytes of VmRSS (now) or VmHWM (at most) of this process. Raises RunFailed where there is no /proc."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        raise RunFailed("the memory of a side is read from /proc, which this system does not have") from None
    return next(int(text.split()[1]) for text in lines if text.startswith(f"{line}:")) * 1024
