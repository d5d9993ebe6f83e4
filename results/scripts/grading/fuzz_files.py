"""Damaged files given to the commands that read them: records, curves, completions, recipes, benchmark files.

Promises: a command ends within its CPU time and its memory, by exit code 0, 1 or 2; it prints no traceback, and at exit
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
from harness.evaluation.samples import content_of
from harness.records.record import content_hash
from harness.records.store import Store
from harness.registry import TASKS, find
from results.scripts.grading.fuzz_families import Trial

PUBLISHED = Path("results/micro")
TASK = "amc23@micro"
LIMIT_S = 60  # CPU time of one command
WAIT_S = 600.0  # how long one command may wait besides: other work on the machine is none of its faults
MEMORY_BYTES = 12 * 2**30  # address space of one command
ODD = (
    None, True, -1, 0, 5.0, 1e308, float("nan"), float("inf"), 10**400, 2**63, "", " ", "nan", "x" * 100_000,
    "\x1b[31m", "\u202e", "\ud800", "=1+1", "a\nb", "../../../etc/passwd", "/dev/zero", [], {}, [[]],
    {"a": {"b": None}},
)  # fmt: skip


def trials(n: int, seed: int) -> Iterator[Trial]:
    if not (PUBLISHED / "records").is_dir():
        raise BadInput(f"no {PUBLISHED}/records here: run it in a checkout, which holds the sound files")
    for module in ("matplotlib.pyplot", "pandas", "pyarrow", "datasets"):  # once here, not in every child
        import_module(module)
    for i in range(n):
        rng = Random(f"{seed}/{i}")
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            shown, words = rng.choice(COMMANDS)(rng, folder)
            code, output = _run(words, folder)
        fault = _fault(code, output)
        line = f"harness {' '.join(w.replace(name, 'DIR') for w in words)}: {fault} (trial {i})"
        yield Trial(shown, f"exit {code}" if code is not None else "no end", fault=line if fault else "")


def _fault(code: int | None, output: str) -> str:
    if code is None:
        return f"did not end within {WAIT_S:g} s"
    if code == -signal.SIGXCPU:
        return f"used more than {LIMIT_S} s of CPU time"
    if "Traceback (most recent call last)" in output:
        return f"a traceback: {output.strip().splitlines()[-1][:160]}"
    if "internal error" in output:
        return next(line for line in output.splitlines() if "internal error" in line)[:240]
    if code not in (0, 1, 2):
        return f"ended by {'signal ' + str(-code) if code < 0 else 'exit code ' + str(code)}"
    return "" if code == 0 or output.strip() else f"exit {code} without a message"


def _run(words: list[str], folder: Path) -> tuple[int | None, str]:
    """One command in a process of its own: its exit code (negative: the signal), None if it ran out of time."""
    from harness.cli import main

    output_file = folder / "said"
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _become(words, output_file, main)
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), output_file.read_text("utf-8", "replace")
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None, output_file.read_text("utf-8", "replace")


def _become(words: list[str], output_file: Path, main: Callable[[list[str]], int]) -> None:
    """The child process: runs the command with its output in ``output_file``, and exits."""
    code = 70  # of a command that raises: its traceback is in ``output_file``
    try:
        output = os.open(output_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for target, source in ((0, nothing), (1, output), (2, output)):
            os.dup2(source, target)
        sys.stdout, sys.stderr = os.fdopen(1, "w", encoding="utf-8"), os.fdopen(2, "w", encoding="utf-8")
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (LIMIT_S, LIMIT_S + 5))
        os.environ |= {
            "HARNESS_HUB": "http://127.0.0.1:9",  # no downloads
            "HARNESS_CACHE": str(output_file.parent / "cache"),
            "HARNESS_DATA": str(output_file.parent / "data"),
        }
        os.chdir(output_file.parent)
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
    records = sorted((PUBLISHED / "records" / TASK).rglob("*.json"))
    chosen = rng.sample(records, min(6, len(records)))
    for record in chosen:
        _copy(record, results)
        facts = json.loads(record.read_text("utf-8"))
        _copy(Store(PUBLISHED).completions_file(facts), results)
        curve = PUBLISHED / "curves" / f"{facts['training_id']}.json"
        if curve.is_file():
            _copy(curve, results)
    part = rng.choice(["records", "records", "completions", "curves"])
    files = sorted(path for path in (results / part).rglob("*") if path.is_file()) or sorted(results.rglob("*.json"))
    victim = rng.choice(files)
    if part == "records" and rng.random() < 0.6:
        _odd_record(rng, victim)
        part = "sealed record, odd values"
    else:
        _damage(rng, victim)
    if rng.random() < 0.2:
        part = "an odd folder"
        _odd_folder(rng, results)
    command = rng.choice(
        [
            ["table"],
            ["table", "--view", "compute"],
            ["table", "--layout", "grid", "--cards"],
            ["list", "tasks"],
            ["show", facts["run_id"]],
            ["show", facts["run_id"], "--command"],
            ["verify", facts["run_id"], "--grade-only"],
            ["table", "--format", "latex"],
            ["reproduce", "distillm2", "--dry-run"],
            ["run", "-m", "kd", "-t", TASK, "--dry-run"],
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
    source = rng.choice(sorted((PUBLISHED / "completions").glob(f"*-{TASK}-*.jsonl*")))
    path.write_bytes(b"".join(content_of(source).splitlines(keepends=True)[:20]))
    _damage(rng, path)
    return "samples: grade", ["grade", "--task", TASK, "--samples", str(path), "--results", str(folder / "results")]


# Damage of one file.


def _damage(rng: Random, path: Path) -> None:
    content = path.read_bytes()
    at = rng.randrange(len(content) + 1)
    contents = (
        "cut",
        "flip",
        "noise",
        "empty",
        "deep",
        "digits",
        "odd",
        "long line",
        "twice",
        "utf-16",
        "spaces",
        "gzip",
    )
    how = rng.choice([*contents, *PLACED])
    if how == "flip":
        made = bytearray(content)
        for _ in range(rng.randrange(1, 20)):
            made[rng.randrange(len(made))] = rng.randrange(256)
        content = bytes(made)
    elif how == "odd":
        text = json.dumps(rng.choice(ODD)).encode()
        content = content[:at] + text + content[at:]
    elif how in PLACED:
        path.unlink()
        PLACED[how](path)
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
            "utf-16": content.decode("utf-8", "replace").encode("utf-16"),
            "spaces": b" \n" * 50_000 + content + b"\x0b\x0c\x1c\x85" * 20,
            "gzip": gzip.compress(content)[: rng.choice([-1, None, 20])],
        }[how]
    path.write_bytes(content)


# What stands in the place of a file.
PLACED: dict[str, Callable[[Path], object]] = {
    "zero": lambda path: path.symlink_to("/dev/zero"),
    "folder": lambda path: path.mkdir(),
    "pipe": os.mkfifo,
    "itself": lambda path: path.symlink_to(path.name),
    "nothing": lambda path: path.symlink_to("nowhere"),
    "the folder above": lambda path: path.symlink_to("..", target_is_directory=True),
    "the password file": lambda path: path.symlink_to("/etc/passwd"),
    "a hole of 50 GB": lambda path: os.truncate(os.open(path, os.O_WRONLY | os.O_CREAT), 50 * 10**9),
    "no permission": lambda path: path.touch(mode=0),
    "no file": lambda path: None,
}
ODD_NAMES = (
    b"\xff\xfe.json", b"a\nb.json", b"--help.json", b"\x1b[31m.json", b".json", b"..json", b"x" * 250 + b".json",
    "\u202e.json".encode(), b"$(id).json", b"a|b.json", b"'\".json", b"\xed\xa0\x80.json",
)  # fmt: skip


def _odd_folder(rng: Random, results: Path) -> None:
    """Makes the results folder odd as a whole: names, links that lead round, a part that is none."""
    how = rng.choice(["name", "round", "part", "file", "loop", "deep"])
    if how == "name":
        name = rng.choice(ODD_NAMES)
        for record in sorted((results / "records").rglob("*.json"))[:1]:
            shutil.copyfile(record, os.path.join(os.fsencode(record.parent), name))
    elif how == "round":
        (results / "records" / "round").symlink_to("..", target_is_directory=True)
    elif how == "part":
        part = results / rng.choice(["records", "completions", "curves", "work", "board"])
        shutil.rmtree(part, ignore_errors=True)
        PLACED[rng.choice([p for p in PLACED if p != "a hole of 50 GB"])](part)
    elif how == "deep":
        folder = results / "records"
        for _ in range(60):
            folder /= "d" * 40
        os.makedirs(folder)
    else:
        shutil.rmtree(results)
        results.write_text("a file") if how == "file" else results.symlink_to("results")


def _copy(path: Path, results: Path) -> None:
    target = results / path.relative_to(PUBLISHED)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, target)


COMMANDS = (_records, _records, _records, _recipe, _benchmark, _samples)
