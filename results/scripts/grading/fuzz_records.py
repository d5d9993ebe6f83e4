"""Sealed records with odd values: each is left out by name, or every command prints something right and harmless.

A stranger can put any value into a record, or into a line of its completions, and seal it again. Promises: a command
ends in time by exit code 0 or 2, and not by an internal error; JSON holds finite numbers; no text acts, neither in a
terminal nor in Markdown, HTML, LaTeX, CSV or a script.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

from harness.errors import BadInput
from harness.evaluation.samples import content_of
from harness.records.record import content_hash
from harness.records.store import Store
from results.scripts.grading import fuzz_files
from results.scripts.grading.fuzz_families import Trial

ROWS = 20  # of each file of completions
SOUND = ("sft", "kd", "vcrd", "untouched")  # methods whose records stay sound, two seeds of each
HOSTILE = (
    "<script>act()</script>", "</script><script>act()</script>", "[go](javascript:act())", "![go](http://a.example/x)",
    "=act()", "+act()", "@act", "-act()", "\tact", "\\input{act}", "x$\\input{act}$", "a|b", "a\nb", "\r=act()",
    "\x1b]0;act\x07", "\u202eact", "\u2028act", "a\x00b", "`act`", "{{act}}", "%s%n", "'\"><img src=x onerror=act()>",
)  # fmt: skip
ODD = (
    None, True, False, -1, 0, 1, 0.5, -0.0, 5.0, 1e308, -1e308, 5e-324, 10**299, -(10**299), 2**31, 2**63, "", " ", ".",
    "..", "../../x", "/dev/zero", "nan", "x" * 100_000, "\ud800", "é" * 300, [], {}, [[]], [1, "a", None],
    {"": {"": ""}},
    {"a": {"b": [None, {"c": 1e308}]}}, {"\x1b[31m": "\x07", "=act()": "|"}, list(range(2000)),
    "9999-99-99T99:99:99+00:00", "0000-00-00T00:00:00+00:00", "9999-12-31T23:59:59+00:00", "0" * 64,
)  # fmt: skip
ACTS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
PLAIN = {
    "table": ["table"],
    "table cards": ["table", "--cards"],
    "table grid": ["table", "--layout", "grid"],
    "table steps": ["table", "--view", "steps"],
    "table compute": ["table", "--view", "compute"],
    "table tokens": ["table", "--view", "compute", "--cost", "tokens", "--anchor", "kd"],
    "table reported": ["table", "--reported"],
    "table csv": ["table", "--format", "csv"],
    "table csv grid": ["table", "--format", "csv", "--layout", "grid"],
    "table json": ["table", "--format", "json"],
    "table json grid": ["table", "--format", "json", "--layout", "grid"],
    "table latex": ["table", "--format", "latex", "--cards"],
    "table html": ["table", "--format", "html", "--cards"],
    "compare": ["compare", "sft", "kd", "--task", "TASK"],
    "compare json": ["compare", "sft", "kd", "--task", "TASK", "--json"],
    "compare compute": ["compare", "kd", "vcrd", "--task", "TASK", "--view", "compute"],
    "plot": ["plot", "--out", "DIR/plot.svg"],
    "plot png": ["plot", "--out", "DIR/plot.png"],
    "pareto": ["plot", "--kind", "pareto", "--out", "DIR/pareto.svg"],
    "curves": ["plot", "--kind", "curves", "--out", "DIR/curves.svg"],
    "board": ["board", "--out", "DIR/board"],
    "export": ["export", "--out", "DIR/export"],
    "export file": ["export", "--out", "DIR/export.parquet"],
    "export datasets": ["export", "--format", "datasets", "--out", "DIR/datasets"],
    "export student": ["export", "RUN", "--out", "DIR/student"],
    "show": ["show", "RUN"],
    "show json": ["show", "RUN", "--json"],
    "show command": ["show", "RUN", "--command"],
    "verify": ["verify", "RUN", "--grade-only"],
    "resume": ["run", "--resume", "RUN", "--method", "kd", "--task", "TASK", "--dry-run"],
    "sweep": ["sweep", "--method", "kd", "--task", "TASK", "--dry-run"],
    "doctor": ["doctor"],
}


def trials(n: int, seed: int) -> Iterator[Trial]:
    if not (fuzz_files.PUBLISHED / "records").is_dir():
        raise BadInput(f"no {fuzz_files.PUBLISHED}/records here: run it in a checkout, which holds the sound records")
    for module in ("matplotlib.pyplot", "pandas", "pyarrow", "datasets"):  # once here, not in every child
        import_module(module)
    with tempfile.TemporaryDirectory() as name:
        results = Path(name) / "results"
        victim, rows = _sound(results)
        record = json.loads(victim.read_text("utf-8"))
        places = [*_places(record), *(("completions", key) for key in ("file", "sha256", "n"))]
        for i in range(n):
            yield _trial(Random(f"{seed}/{i}"), i, Path(name), victim, record, rows, places)


def _trial(
    rng: Random,
    number: int,
    folder: Path,
    victim: Path,
    record: dict[str, Any],
    rows: list[dict[str, Any]],
    places: list[tuple[str, ...]],
) -> Trial:
    value = rng.choice(HOSTILE) if rng.random() < 0.4 else rng.choice(ODD)
    in_row = rng.random() < 0.2
    place = (rng.choice(list(rows[0])),) if in_row else rng.choice(places)
    _write(folder / "results", victim, record, rows, place, value, in_row)
    shown = rng.choice(list(PLAIN))
    out = folder / "out"
    out.mkdir()
    words = [
        w.replace("DIR", str(out)).replace("TASK", fuzz_files.TASK).replace("RUN", victim.stem) for w in PLAIN[shown]
    ]
    code, output = fuzz_files._run([*words, "--results", str(folder / "results")], folder)
    fault = fault_of(shown, code, output, out, victim.stem)
    shutil.rmtree(out)
    what = f"{'completions: ' * in_row}{'.'.join(place)} = {str(value)[:60]!r}"
    return Trial(shown, _outcome(code, output), fault=f"{what}: {fault} (trial {number})" if fault else "")


def _outcome(code: int | None, output: str) -> str:
    left = ", left out" if ": left out: " in output else ""
    return "no end" if code is None else f"exit {code}{left}"


def fault_of(shown: str, code: int | None, printed: str, out: Path, run_id: str) -> str:
    """The promise that a command broke, or ""."""
    if fault := fuzz_files._fault(code, printed):
        return fault
    if code == 1 and shown not in ("verify", "doctor", "show command"):
        return f"failed: {printed.strip().splitlines()[-1][:200]}"
    if match := ACTS.search(printed):
        return f"prints {match[0]!r}"
    output = "\n".join(
        line for line in printed.splitlines() if not line.startswith(("warning: ", "note: ", "harness: "))
    )
    if code:
        return ""
    for form, check in CHECKS.items():
        if form in shown and (fault := check(output)):
            return fault
    for page in out.rglob("*.html"):
        if fault := _html(page.read_text("utf-8")):
            return f"{page.name}: {fault}"
    return ""


def _markdown(text: str) -> str:
    match = re.search(r"(?<!\\)<(?:script|img)|(?<!\\)\]\((?:javascript|http)", text)
    return f"Markdown that acts: {match[0]}" if match else ""


def _html(text: str) -> str:
    match = re.search(r"<script>act|<img src=x", text)
    return f"HTML that acts: {match[0]}" if match else ""


def _latex(text: str) -> str:
    return "LaTeX that acts" if "\\input{" in text else ""


def _csv(text: str) -> str:
    for row in csv.reader(io.StringIO(text)):
        for cell in row:
            if cell.startswith(("=", "+", "@", "\t", "\r")) or re.match(r"-(?![\d.])", cell):
                return f"a cell that acts: {cell[:40]!r}"
    return ""


def _json(text: str) -> str:
    start = min((at for at in (text.find("["), text.find("{")) if at >= 0), default=-1)
    try:
        content = json.loads(text[start:], parse_constant=lambda word: math.nan)
    except ValueError as error:
        return f"no JSON: {error}"
    return next((f"{key} is {number}" for key, number in _numbers(content) if not math.isfinite(number)), "")


def _numbers(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _numbers(item, name)
    elif isinstance(value, list):
        for item in value:
            yield from _numbers(item, key)
    elif isinstance(value, float):
        yield key, value


CHECKS: dict[str, Callable[[str], str]] = {"html": _html, "latex": _latex, "csv": _csv, "json": _json}
CHECKS |= dict.fromkeys(("table cards", "table grid", "table steps", "table compute", "table tokens"), _markdown)


def _sound(results: Path) -> tuple[Path, list[dict[str, Any]]]:
    """Copies sound records to ``results``; returns the file of one more, and its first completions."""
    source = Store(fuzz_files.PUBLISHED)
    folder = fuzz_files.PUBLISHED / "records" / fuzz_files.TASK
    files = [file for method in SOUND for file in sorted((folder / method).glob("*.json"))[:2]]
    victim = sorted((folder / "kd").glob("*.json"))[2]
    for file in (*files, victim):
        record = json.loads(file.read_text("utf-8"))
        rows = [json.loads(line) for line in content_of(source.completions_file(record)).splitlines()[:ROWS]]
        curve = fuzz_files.PUBLISHED / "curves" / f"{record['training_id']}.json"
        if curve.is_file():
            fuzz_files._copy(curve, results)
        target = results / file.relative_to(fuzz_files.PUBLISHED)
        _seal(results, target, record, rows)
    return target, rows


def _places(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, item in value.items() if isinstance(value, dict) else ():
        if key != "content_sha256":
            yield (*path, key)
            yield from _places(item, (*path, key))


def _write(
    results: Path,
    path: Path,
    record: dict[str, Any],
    rows: list[dict[str, Any]],
    place: tuple[str, ...],
    value: Any,
    in_row: bool,
) -> None:
    """The record with ``value`` at ``place``, or at ``place`` of its third completion, sealed as a stranger could."""
    made, lines = json.loads(json.dumps([record, rows]))
    part = lines[2] if in_row else made
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    keep = () if in_row else {key: made["completions"].get(key) for key in place[1:] if place[0] == "completions"}
    _seal(results, path, made, lines, keep)


def _seal(results: Path, path: Path, record: dict[str, Any], rows: list[dict[str, Any]], keep: Any = ()) -> None:
    if isinstance(record["completions"], dict):
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        file = results / "completions" / f"{path.stem}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
        entry = {"file": f"completions/{file.name}", "sha256": hashlib.sha256(content).hexdigest(), "n": len(rows)}
        record["completions"] = entry | dict(keep)
    record["content_sha256"] = content_hash(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record), "utf-8")
