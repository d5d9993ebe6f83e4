"""Damaged files given to the commands that read them: records, curves, completions, recipes, benchmark files.

Promises: a command ends in time and within its memory, by exit code 0, 1 or 2; it prints no traceback, and at exit
1 or 2 at least one line. The sound files are those of ``results/micro`` in a checkout.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

from harness.errors import BadInput
from harness.evaluation.sample_rows import content_of
from harness.records.record import content_hash
from harness.records.store import Store
from harness.registry import TASKS, find
from results.scripts.grading.fuzz_families import Trial

SOUND = Path("results/micro")
TASK = "amc23@micro"
LIMIT_S = 60.0  # of one command
MEMORY_BYTES = 12 * 2**30  # address space of one command
ODD = (
    None, True, -1, 0, 5.0, 1e308, float("nan"), float("inf"), 10**400, 2**63, "", " ", "nan", "x" * 100_000,
    "\x1b[31m", "\u202e", "\ud800", "=1+1", "a\nb", "../../../etc/passwd", "/dev/zero", [], {}, [[]],
    {"a": {"b": None}},
)  # fmt: skip


def trials(n: int, seed: int) -> Iterator[Trial]:
    if not (SOUND / "records").is_dir():
        raise BadInput(f"no {SOUND}/records here: run it in a checkout of the repository, which holds the sound files")
    for module in ("matplotlib.pyplot", "pandas", "pyarrow", "datasets"):  # once here, not in every child
        import_module(module)
    for i in range(n):
        rng = Random(f"{seed}/{i}")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            shown, words = rng.choice(COMMANDS)(rng, folder)
            code, said = _run(words, folder)
        fault = _fault(code, said)
        line = f"harness {' '.join(w.replace(name, 'DIR') for w in words)}: {fault} (trial {i})"
        yield Trial(shown, f"exit {code}" if code is not None else "no end", fault=line if fault else "")


def _fault(code: int | None, said: str) -> str:
    if code is None:
        return f"did not end within {LIMIT_S:g} s"
    if "Traceback (most recent call last)" in said:
        return f"a traceback: {said.strip().splitlines()[-1][:160]}"
    if "internal error" in said:
        return next(line for line in said.splitlines() if "internal error" in line)[:240]
    if code not in (0, 1, 2):
        return f"ended by {'signal ' + str(-code) if code < 0 else 'exit code ' + str(code)}"
    return "" if code == 0 or said.strip() else f"exit {code} without a word"


def _run(words: list[str], folder: Path) -> tuple[int | None, str]:
    """One command in a process of its own: its exit code (negative: the signal), None if it ran out of time."""
    from harness.cli import main

    said = folder / "said"
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _become(words, said, main)
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), said.read_text("utf-8", "replace")
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None, said.read_text("utf-8", "replace")


def _become(words: list[str], said: Path, main: Callable[[list[str]], int]) -> None:
    """The child process: runs the command with its output in ``said``, and exits."""
    code = 70  # of a command that raises: its traceback is in ``said``
    try:
        output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, nothing), (1, output), (2, output)):
            os.dup2(source, target)
        sys.stdout, sys.stderr = os.fdopen(1, "w", encoding="utf-8"), os.fdopen(2, "w", encoding="utf-8")
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        os.environ |= {
            "HARNESS_HUB": "http://127.0.0.1:9",  # no downloads
            "HARNESS_CACHE": str(said.parent / "cache"),
            "HARNESS_DATA": str(said.parent / "data"),
        }
        os.chdir(said.parent)
        code = main(words)
        sys.stdout.flush()
        sys.stderr.flush()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 70
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


# One command each: what was damaged, and the command line.


def _records(rng: Random, folder: Path) -> tuple[str, list[str]]:
    results = folder / "results"
    records = sorted((SOUND / "records" / TASK).rglob("*.json"))
    chosen = rng.sample(records, min(6, len(records)))
    for record in chosen:
        _copy(record, results)
        facts = json.loads(record.read_text("utf-8"))
        _copy(Store(SOUND).completions_file(facts), results)
        curve = SOUND / "curves" / f"{facts['training_id']}.json"
        if curve.is_file():
            _copy(curve, results)
    part = rng.choice(["records", "records", "completions", "curves"])
    found = sorted(path for path in (results / part).rglob("*") if path.is_file()) or sorted(results.rglob("*.json"))
    victim = rng.choice(found)
    if part == "records" and rng.random() < 0.6:
        _odd_record(rng, victim)
        part = "sealed record, odd values"
    else:
        _damage(rng, victim)
    command = rng.choice(
        [
            ["table"],
            ["table", "--format", "csv"],
            ["table", "--format", "json"],
            ["compare", "kd", "gkd", "--task", TASK],
            ["plot", "--out", str(folder / "plot.svg")],
            ["plot", "--kind", "curves", "--out", str(folder / "curves.svg")],
            ["board", "--out", str(folder / "board")],
            ["export", "--out", str(folder / "export")],
            ["show", str(victim)],
        ]
    )
    return f"{part}: {command[0]}", [*command, "--results", str(results)]


def _odd_record(rng: Random, path: Path) -> None:
    """Puts odd values into a record and seals it correctly."""
    record = json.loads(path.read_text("utf-8"))
    for _ in range(rng.randrange(1, 4)):
        _odd_value(rng, record)
    try:
        record["content_sha256"] = content_hash(record)
        path.write_text(json.dumps(record), "utf-8")
    except (ValueError, TypeError):  # cannot be sealed: it stays damaged, with its old seal
        path.write_bytes(json.dumps(record).encode("utf-8", "surrogatepass"))


def _odd_value(rng: Random, value: Any) -> None:
    """One place inside ``value``, at any depth, gets an odd value, loses its key, or gets a second name."""
    while True:
        places = list(value) if isinstance(value, dict) else list(range(len(value)))
        place = rng.choice(places)
        if isinstance(value[place], dict | list) and value[place] and rng.random() < 0.6:
            value = value[place]
            continue
        if isinstance(value, dict) and rng.random() < 0.3:
            held = value.pop(place)
            if rng.random() < 0.5:
                value[f"{place}_"] = held
        else:
            value[place] = rng.choice(ODD)
        return


def _recipe(rng: Random, folder: Path) -> tuple[str, list[str]]:
    from importlib import resources

    path = folder / "recipe.toml"
    path.write_text((resources.files("harness.recipes") / "micro.toml").read_text("utf-8"), "utf-8")
    _damage(rng, path)
    words = ["sweep", "--method", "kd", "--task", TASK, "--recipe", str(path), "--dry-run"]
    return "recipe: sweep --dry-run", [*words, "--results", str(folder / "results")]


def _benchmark(rng: Random, folder: Path) -> tuple[str, list[str]]:
    task = rng.choice(["amc23", "math500", "gsm8k", "humanevalplus"])
    path = folder / "data" / find(TASKS, task).dataset.local
    rows = [{"id": str(i), "problem": f"What is {i}+1?", "answer": f"#### {i + 1}", "question": "?"} for i in range(40)]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    _damage(rng, path)
    return "benchmark file: check", ["check", "--task", task]


def _samples(rng: Random, folder: Path) -> tuple[str, list[str]]:
    path = folder / "samples.jsonl"
    source = rng.choice(sorted((SOUND / "completions").glob(f"*-{TASK}-*.jsonl*")))
    path.write_bytes(b"".join(content_of(source).splitlines(keepends=True)[:20]))
    _damage(rng, path)
    return "samples: grade", ["grade", "--task", TASK, "--samples", str(path), "--results", str(folder / "results")]


# Damage of one file.


def _damage(rng: Random, path: Path) -> None:
    content = path.read_bytes()
    at = rng.randrange(len(content) + 1)
    how = rng.choice(["cut", "flip", "noise", "empty", "deep", "digits", "odd", "zero", "folder", "long line", "twice"])
    if how == "flip":
        made = bytearray(content)
        for _ in range(rng.randrange(1, 20)):
            made[rng.randrange(len(made))] = rng.randrange(256)
        content = bytes(made)
    elif how == "odd":
        text = json.dumps(rng.choice(ODD)).encode()
        content = content[:at] + text + content[at:]
    elif how in ("zero", "folder"):
        path.unlink()
        path.symlink_to("/dev/zero") if how == "zero" else path.mkdir()
        return
    else:
        content = {
            "cut": content[:at],
            "noise": rng.randbytes(rng.randrange(2000)),
            "empty": b"",
            "deep": content[:at] + b"[" * 100_000 + content[at:],
            "digits": content[:at] + b"9" * rng.choice([500, 5_000, 100_000]) + content[at:],
            "long line": content.replace(b"\n", b" ") * 3,
            "twice": content * 2,
        }[how]
    path.write_bytes(content)


def _copy(path: Path, results: Path) -> None:
    target = results / path.relative_to(SOUND)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


COMMANDS = (_records, _records, _records, _recipe, _benchmark, _samples)
