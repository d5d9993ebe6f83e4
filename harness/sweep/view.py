"""Shows a whole sweep on stderr: a live table on a terminal, elsewhere a line per start and end of a run."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from harness.sweep.cells import SweepCell
from harness.sweep.jobs import SweepOutcome, last_line


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
