"""Measures sides as processes that take turns; ratios with their spread, tables with the machine they come from.

A side is ``python -m results.scripts.bench --side MODULE``: it reads one line of JSON (its specification), prepares
itself, and then answers every further line with one line of JSON. Only one side works at a time.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.errors import RunFailed

ROOT = Path(__file__).resolve().parents[3]


def serve(module: str) -> int:
    """The process of a side: ``module.side(spec)`` returns what is called once per turn."""
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print
    turn = import_module(module).side(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        print(json.dumps(turn(json.loads(line))), file=answers, flush=True)
    return 0


class Side:
    """One process under measurement. Use it as a context; :meth:`turn` is one measured round."""

    def __init__(self, module: str, spec: Mapping[str, Any], python: str | Path = sys.executable, threads: int = 1):
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"}
        environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRL_EXPERIMENTAL_SILENCE": "1"}
        self.module, self.spec = module, {**spec, "threads": threads}
        self.command, self.environment = [str(python), "-m", "results.scripts.bench", "--side", module], environment

    def __enter__(self) -> Side:
        # The output of the libraries goes to a file that is read only when a side fails.
        self.words = Path(os.environ.get("TMPDIR", "/tmp")) / f"harness-bench-{os.getpid()}-{id(self)}.log"
        self.log = self.words.open("w+b")
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, env=self.environment, cwd=ROOT
        )
        self._say(json.dumps(self.spec))
        return self

    def __exit__(self, *reason: Any) -> None:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(20 if reason[0] is None else 0.1)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()
        self.words.unlink(missing_ok=True)

    def turn(self, **request: Any) -> dict[str, Any]:
        """What the side reports of its next round. Raises RunFailed with the side's last line."""
        self._say(json.dumps(request))
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.log.seek(0)
            last = self.log.read().decode("utf-8", "replace").strip().splitlines()[-1:] or ["no output"]
            code = self.process.returncode
            why = "was killed, probably out of memory" if code == -9 else f"ended with code {code}: {last[0]}"
            raise RunFailed(f"the side {self.spec.get('who', self.module)!r} {why}")
        return json.loads(line)

    def _say(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # turn() then finds the process ended
            self.process.stdin.write(line.encode() + b"\n")
            self.process.stdin.flush()


@contextlib.contextmanager
def stopwatch(times: dict[str, float]) -> Iterator[None]:
    """Adds ``seconds`` (wall clock) and ``cpu`` (user and system time of this process) to ``times``."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    times["seconds"] = time.perf_counter() - wall
    times["cpu"] = time.process_time() - cpu


def in_turns(sides: Sequence[Callable[[], dict[str, Any]]], rounds: int) -> list[list[dict[str, Any]]]:
    """[rounds][sides] what each side reports; every other round is in reverse order, so that drift favours no side."""
    results = []
    for number in range(rounds):
        order = list(range(len(sides)))[:: -1 if number % 2 else 1]
        reports = {i: sides[i]() for i in order}
        results.append([reports[i] for i in range(len(sides))])
    return results


def ratio(pairs: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Median and extremes of first / second over the rounds."""
    values = [a / b for a, b in pairs]
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "rounds": len(values)}


def spread(r: Mapping[str, float]) -> str:
    """A ratio as a cell of a table."""
    if r["rounds"] == 1:
        return f"{r['median']:.2f} (one round)"
    return f"{r['median']:.2f} ({r['min']:.2f}–{r['max']:.2f})"


def machine(threads: int) -> dict[str, Any]:
    """What a reader needs to know of the machine, without its name and paths."""
    import torch

    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory, 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": threads,
        "load_average_at_start": round(os.getloadavg()[0], 1),
    }


@dataclass
class BenchReport:
    """A benchmark's outcome. ``tables`` are (title, columns, rows of cells); ``raw`` is every measured number."""

    name: str
    what: str
    machine: dict[str, Any]
    tables: list[tuple[str, list[str], list[list[str]]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, doc: str | None, threads: int) -> BenchReport:
        """The empty report of the script with the docstring ``doc``, whose text below its first line it quotes."""
        about = (doc or "").split("\n\n", 1)[1].replace("\n", " ").strip()
        return cls(name, about, machine(threads))

    def markdown(self) -> str:
        m = self.machine
        lines = [f"# {self.name}", "", self.what, ""]
        lines += [
            f"{m['cpu']}, {m['cores']} cores, {m['memory_gib']} GiB; torch {m['torch']}, Python {m['python']}, "
            f"{m['threads']} thread(s) a side; load average at the start {m['load_average_at_start']}.",
            "",
        ]
        for title, columns, rows in self.tables:
            lines += [f"## {title}", ""] if title else []
            lines += [f"| {' | '.join(columns)} |", f"| --- |{' ---: |' * (len(columns) - 1)}"]
            lines += [f"| {' | '.join(row)} |" for row in rows] + [""]
        return "\n".join(lines + [f"- {note}" for note in self.notes]).rstrip() + "\n"

    def write(self, folder: Path) -> None:
        """Writes ``NAME.md`` and ``NAME.json`` to ``folder``, each atomically."""
        folder.mkdir(parents=True, exist_ok=True)
        data = {"name": self.name, "what": self.what, "machine": self.machine, "notes": self.notes, "raw": self.raw}
        for suffix, text in ((".md", self.markdown()), (".json", json.dumps(data, indent=1) + "\n")):
            temporary = folder / f".{self.name}{suffix}.writing"
            temporary.write_text(text, "utf-8")
            os.replace(temporary, folder / f"{self.name}{suffix}")
