"""Whether cost grows in proportion: records of the table, tokens of a loss, samples a problem.

Cost per unit at each size, relative to the smallest. ``harness table`` is the whole command on synthetic records
of the published ones' shape; the loss is a step's chunked head and objective; samples are k texts a prompt.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.errors import RunFailed
from results.scripts.bench.commands import timed
from results.scripts.bench.measure import ROOT, BenchReport, stopwatch

RECORDS = (1_000, 3_000, 10_000)
TOKENS = (256, 512, 1024, 2048)
SAMPLES = (1, 2, 4, 8)
LIMIT = 3.0  # seconds for the table of 10,000 records


def run(chosen: Any) -> BenchReport:
    """Three tables; every cell is the fastest round, the one least disturbed by other processes."""
    report = BenchReport.of("scaling", __doc__, chosen.threads)
    wanted = chosen.only or ["records", "tokens", "samples"]
    small = chosen.size == "small"
    if "records" in wanted:
        _series(
            report, "records", "harness table", [n // 100 for n in RECORDS] if small else RECORDS, _table, chosen.rounds
        )
    if "tokens" in wanted:
        _series(report, "tokens", "loss, V = 32,768, hidden 256", TOKENS[:2] if small else TOKENS, _loss, chosen.rounds)
    if "samples" in wanted:
        _series(
            report,
            "samples a problem",
            "16 prompts, micro student",
            SAMPLES[:2] if small else SAMPLES,
            _texts,
            chosen.rounds,
        )
    report.notes = [f"goal: harness table on 10,000 records in under {LIMIT:g} s"]
    report.write(chosen.out)
    return report


def _series(report: BenchReport, unit: str, title: str, sizes: Any, make: Callable, rounds: int) -> None:
    rows, raw = [], []
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            work = make(size, Path(folder))
            work()  # warm-up: files in the page cache, code loaded
            times = [work() for _ in range(rounds)]
        best = {key: min(f[key] for f in times) for key in ("seconds", "cpu")}
        raw.append({"size": size, "rounds": times})
        each = best["cpu"] / size
        first = rows[0][-1] if rows else each
        rows.append(
            [
                f"{size:,}",
                f"{best['seconds']:.2f}",
                f"{best['cpu']:.2f}",
                f"{each * 1e3:.3f}",
                f"{each / first:.2f}",
                first,
            ]
        )
    report.raw[unit] = raw
    columns = [unit, "s", "CPU s", f"CPU ms per {unit.split()[0].rstrip('s')}", "relative to the smallest"]
    report.tables.append((title, columns, [row[:-1] for row in rows]))


def _table(count: int, folder: Path) -> Callable[[], dict[str, float]]:
    """``harness table`` on ``count`` records: copies of the published ones under other students' names."""
    from harness.records.record import identity_of, run_id
    from harness.records.store import Store

    published, store = Store(ROOT / "results" / "micro"), Store(folder)
    records, _ = published.all()
    if not records:
        raise RunFailed("results/micro holds no records to make synthetic ones of")
    sealed = {"schema_version", "created", "completions", "content_sha256"}
    for number in range(count):
        record = {k: copy.deepcopy(v) for k, v in records[number % len(records)].items() if k not in sealed}
        record["seed"] = record["spec"]["seed"] = number // len(records)
        record["identity"] = identity_of(record["spec"], record["protocol"])
        who = {"name": record["method"]["name"], "variant": record["method"]["variant"]}
        record["run_id"] = run_id(who, record["task"], record["seed"], record["identity"], 0)
        record["attempt"] = 0
        store.add(record, published.completions(records[number % len(records)])[:20] if number < 40 else [])
    command = [sys.executable, "-m", "harness", "table", "--results", str(folder)]
    return lambda: {k: v for k, v in timed(command).items() if k != "stdout"}


def _loss(tokens: int, _: Path) -> Callable[[], dict[str, float]]:
    from results.scripts.bench.loss_sides import prepare

    work = prepare({"who": "ours", "method": "jsd", "vocab": 32_768, "hidden": 256, "tokens": tokens})
    return _watched(work)


def _texts(samples: int, _: Path) -> Callable[[], dict[str, float]]:
    from harness.models.files import load_model, load_tokenizer, locate
    from harness.models.generate import Generator
    from harness.recipe import load
    from harness.training_data import examples
    from harness.types import Decoding

    files, recipe = locate("micro:student"), load("micro")
    generator = Generator(load_model(files), load_tokenizer(files), 32)
    loaded = examples.load(recipe.data.prompts, recipe.data, labelled=False)[:16]
    prompts = [generator.render(e.prompt) for e in loaded for _ in range(samples)]
    return _watched(lambda: generator.generate(prompts, Decoding(1.0, 1.0, 72), list(range(len(prompts)))))


def _watched(work: Callable[[], Any]) -> Callable[[], dict[str, float]]:
    def turn() -> dict[str, float]:
        times: dict[str, float] = {}
        with stopwatch(times):
            work()
        return times

    return turn
