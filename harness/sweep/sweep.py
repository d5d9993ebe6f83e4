"""Schedules the cells of a sweep, retries failed ones and collects the outcomes."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from harness.sweep.jobs import Executor, SweepCell, SweepJob, SweepOutcome, last_line

TICK_S = 0.2


@dataclass
class CellResult:
    """The result of a cell. ``status`` is ``recorded`` (before the sweep), ``done`` or ``failed``."""

    cell: SweepCell
    status: str
    attempts: int = 0
    run_ids: tuple[str, ...] = ()
    message: str = ""
    seconds: float = 0.0


class SweepView(Protocol):
    """Receives the progress of a sweep."""

    def begin(self, cell: SweepCell, attempt: int, log: Path) -> None: ...

    def end(self, cell: SweepCell, outcome: SweepOutcome, again: bool) -> None: ...

    def tick(self) -> None: ...


@dataclass
class _Running:
    cell: SweepCell
    job: SweepJob
    attempt: int
    began: float = field(default_factory=time.monotonic)


def sweep(
    cells: Sequence[SweepCell], executor: Executor, retries: int, logs: Path, view: SweepView
) -> list[CellResult]:
    """Runs every cell that is not recorded; a failed attempt is repeated up to ``retries`` times, after the others.

    An attempt that ended with bad input is not repeated. Interrupting the sweep stops the running attempts; what
    they finished is kept, and the same command continues the sweep.
    """
    done = {c: CellResult(c, "recorded", run_ids=c.recorded) for c in cells if not c.missing}
    waiting = deque((cell, 1) for cell in cells if cell.missing)
    running: list[_Running] = []
    spent: dict[SweepCell, float] = {}
    try:
        while waiting or running:
            # Fill the free workers.
            while waiting and len(running) < executor.workers:
                cell, attempt = waiting.popleft()
                log = logs / f"{cell.file}.log"
                view.begin(cell, attempt, log)
                running.append(_Running(cell, executor.submit(cell, log), attempt))
            # Collect ended attempts. A failed one goes to the end of the queue, so that a cell that fails slowly
            # does not hold up the others.
            for one in list(running):
                outcome = one.job.outcome()
                if outcome is None:
                    continue
                running.remove(one)
                spent[one.cell] = spent.get(one.cell, 0.0) + max(0.0, time.monotonic() - one.began)
                again = not outcome.final and one.attempt <= retries
                view.end(one.cell, outcome, again)
                if again:
                    waiting.append((one.cell, one.attempt + 1))
                    continue
                status = "done" if outcome.well else "failed"
                done[one.cell] = CellResult(
                    one.cell, status, one.attempt, outcome.run_ids, outcome.message, spent[one.cell]
                )
            view.tick()
            if running:
                time.sleep(TICK_S)
    finally:
        for one in running:
            one.job.cancel()
        executor.close()
    return [done[cell] for cell in cells]


# Shows a whole sweep on stderr: a live table on a terminal, elsewhere a line per start and end of a run.


class TerminalView:
    """Use it as a context manager; ``total`` cells, ``recorded`` of them before the sweep."""

    def __init__(self, total: int, recorded: int):
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.total, self.finished, self.failed = total, recorded, 0
        self.running: dict[SweepCell, tuple[int, float, Path]] = {}
        self.live = Live(console=self.console, transient=True, auto_refresh=False) if sys.stderr.isatty() else None

    def __enter__(self) -> TerminalView:
        if self.live:
            self.live.__enter__()
        return self

    def __exit__(self, *error) -> None:
        if self.live:
            self.live.__exit__(*error)

    def begin(self, cell: SweepCell, attempt: int, log: Path) -> None:
        self.running[cell] = (attempt, time.monotonic(), log)
        again = f" (attempt {attempt})" if attempt > 1 else ""
        self.console.print(f"begins   {cell.label}{again}: {', '.join(cell.missing)}", markup=False)

    def end(self, cell: SweepCell, outcome: SweepOutcome, again: bool) -> None:
        attempt, began, _ = self.running.pop(cell)
        seconds = f"{max(0.0, time.monotonic() - began):.0f} s"
        if outcome.well:
            self.finished += 1
            self.console.print(f"done     {cell.label} in {seconds}: {', '.join(outcome.run_ids)}", markup=False)
            return
        self.failed += not again
        word = "retries " if again else "failed  "
        self.console.print(f"{word} {cell.label} after {seconds}, attempt {attempt}: {outcome.message}", markup=False)

    def tick(self) -> None:
        if not self.live:
            return
        table = Table.grid(padding=(0, 2))
        for cell, (attempt, began, log) in self.running.items():
            table.add_row(cell.label, f"attempt {attempt}", f"{time.monotonic() - began:.0f} s", last_line(log)[:80])
        message = f"{self.finished} of {self.total} done, {len(self.running)} running, {self.failed} failed"
        self.live.update(
            Group(ProgressBar(self.total, self.finished + self.failed, width=60), message, table), refresh=True
        )
