"""Progress of long work: a moving line on a terminal, by default nothing elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn


class Reporter:
    """``progress`` moves a bar per stage; ``announce`` writes a line to stderr.

    Where stderr is not a terminal there is no bar, but a line every ``line_every`` seconds if that is given.
    """

    def __init__(self, line_every: float | None = None):
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.shown = sys.stderr.isatty()
        self.line_every, self.last_line = line_every, time.monotonic()
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[details]}"),
            console=self.console,
            transient=True,
            disable=not self.shown,
        )
        self.stage, self.task, self.seen = None, None, 0.0

    def __enter__(self) -> Reporter:
        self.bar.__enter__()
        return self

    def __exit__(self, *error) -> None:
        self.bar.__exit__(*error)

    def progress(self, stage: str, done: int, total: int, details: str) -> None:
        if not self.shown:
            if self.line_every is not None and time.monotonic() - self.last_line >= self.line_every:
                self.last_line = time.monotonic()
                self.announce(f"{stage}: {done} of {total} {details}".rstrip())
            return
        if stage == self.stage and done < total and time.monotonic() - self.seen < 0.1:
            return
        self.seen = time.monotonic()
        if stage != self.stage:
            if self.task is not None:
                self.bar.remove_task(self.task)
            self.stage, self.task = stage, self.bar.add_task(stage, total=total, details="")
        self.bar.update(self.task, completed=done, total=total, details=details)

    def announce(self, line: str) -> None:
        self.console.print(line, markup=False)
