"""Progress of long work: a moving line on a terminal, one rewritten output in a notebook, elsewhere a line now
and then; also counts texts during generation.

A batch job's log must show that the job is alive, whatever it waits for. The lines therefore come from a separate
thread, every :data:`LINE_EVERY_S` seconds, even if nothing is reported.
"""

from __future__ import annotations

import logging
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

from harness.safe_read import broken

LINE_EVERY_S = 30.0  # twice as often as the promised line per minute
LOADING = ("loading", 0, 0, "")
CELL_EVERY_S = 0.5  # a page that is rewritten more often cannot keep up
CELL_WIDTH = 100  # characters that a notebook output shows without breaking words
BAR_WIDTH = 24


@dataclass
class _Stage:
    """The last report of a stage of the work."""

    name: str
    done: int
    total: int
    details: str = ""
    began: float = field(default_factory=lambda: time.monotonic())
    first: int = 0  # done before: a resumed run starts in the middle
    reached: float = 0.0  # seconds after the beginning, when the last part was done

    def report(self, done: int, total: int, details: str) -> None:
        if done != self.done:
            self.reached = time.monotonic() - self.began
        self.done, self.total, self.details = done, total, details

    def line(self) -> str:
        now = time.monotonic() - self.began
        if not self.total:
            return f"{self.name}: {duration(now)} so far"
        parts = [f"{self.name}: {self.done:,} of {self.total:,}", self.details]
        left = self._left(now) if self.first < self.done < self.total else 0.0
        if left > 0:
            parts.append(f"about {duration(left)} left")
        elif self.done < self.total and now >= 1:
            parts.append(f"{duration(now)} so far")
        return ", ".join(part for part in parts if part)

    def _left(self, now: float) -> float:
        """Seconds, if each part that is left takes as long as the average of those done; 0 if the last is overdue."""
        done, left = self.done - self.first, self.total - self.done
        if now - self.reached <= self.reached / done:
            return self.reached / done * left - (now - self.reached)
        return now / (done + 1) * (left - 1)  # the part at work takes longer than the others: it counts as done now


class _Cell(logging.Handler):
    """The display in a notebook: one output, rewritten as the work proceeds. Announced lines stay above the bar.

    Log messages of :mod:`harness` become such lines too; a notebook would show them in separate red boxes.
    """

    def __init__(self):
        super().__init__()
        self.lines: list[str] = []
        self.output: Any = None
        self.drawn = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        self.add(record.getMessage(), None)

    def add(self, line: str, stage: _Stage | None) -> None:
        self.lines += textwrap.wrap(line, CELL_WIDTH, subsequent_indent="  ", break_on_hyphens=False)
        self.draw(stage)

    def draw(self, stage: _Stage | None) -> None:
        """Shows the lines, and below them the stage with its bar. ``None``: only the lines."""
        from IPython.display import display

        text = {"text/plain": "\n".join([*self.lines, *([] if stage is None else [_bar(stage), stage.line()])])}
        with self.lock:
            self.drawn = time.monotonic()
            if self.output is None and (self.lines or stage is not None):
                self.output = display(text, raw=True, display_id=True)
            elif self.output is not None:
                self.output.update(text, raw=True)


def _bar(stage: _Stage) -> str:
    full = round(BAR_WIDTH * stage.done / stage.total) if stage.total else 0
    return "━" * full + "╌" * (BAR_WIDTH - full)


def _in_notebook() -> bool:
    """Whether a Jupyter kernel runs this process. IPython in a terminal has no kernel."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and getattr(ipython.get_ipython(), "kernel", None) is not None


class Reporter:
    """``progress`` moves a bar per stage; ``announce`` writes a line to stderr. In a notebook both change one output.

    Outside of terminals and notebooks there is no bar, but a line every ``line_every`` seconds, unless that is
    None.
    """

    def __init__(self, line_every: float | None = LINE_EVERY_S):
        self.console = Console(stderr=True, highlight=False, soft_wrap=True)
        self.shown = sys.stderr.isatty()
        self.cell = _Cell() if _in_notebook() else None
        self.line_every = line_every
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
        self.stage: _Stage | None = None
        self.task, self.drawn_at = None, 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._lines, name="progress", daemon=True)

    def __enter__(self) -> Reporter:
        self.bar.__enter__()
        if self.cell is not None:
            logging.getLogger("harness").addHandler(self.cell)
        if not self.shown and self.line_every is not None:
            self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._ended.set()
        self.bar.__exit__(*error)
        if self.cell is not None:
            logging.getLogger("harness").removeHandler(self.cell)
            if self._thread.is_alive():
                self._thread.join()  # otherwise it draws a bar after the last message
            self.cell.draw(None)

    def progress(self, stage: str, done: int, total: int, details: str) -> None:
        """``done`` of ``total`` of a stage; ``total`` is 0 if unknown."""
        if self.stage is None or stage != self.stage.name:
            self.stage = _Stage(stage, done, total, details, first=done)
            if self.shown:
                self._begin(self.stage)
        self.stage.report(done, total, details)
        if self.shown and (done >= total or time.monotonic() - self.drawn_at >= 0.1):
            self.drawn_at = time.monotonic()
            self.bar.update(self.task, completed=done, total=total or None, details=details)
        if self.cell is not None and time.monotonic() - self.cell.drawn >= CELL_EVERY_S:
            self.cell.draw(self.stage)

    def announce(self, line: str) -> None:
        if self.cell is not None:
            self.cell.add(line, self.stage)
        else:
            self.console.print(broken(line) if self.shown else line, markup=False)

    def _begin(self, stage: _Stage) -> None:
        if self.task is not None:
            self.bar.remove_task(self.task)
        self.task = self.bar.add_task(stage.name, total=stage.total or None, details=stage.details)

    def _lines(self) -> None:
        while not self._ended.wait(self.line_every if self.cell is None else CELL_EVERY_S):
            if self.stage is not None and self.cell is not None:
                self.cell.draw(self.stage)
            elif self.stage is not None:
                self.announce(self.stage.line())


def duration(seconds: float) -> str:
    """A time in seconds, minutes or hours."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


class Watch:
    """Receives every token and every text. This base class does nothing."""

    def wrote(self, tokens: int) -> None:
        """``tokens`` more were sampled, one for each unfinished text."""

    def finished(self, row: int, generated: Any) -> None:
        """The text of request ``row`` is complete: :class:`harness.models.generate.Generated`, or a kept answer."""


UNWATCHED = Watch()


class TextCount(Watch):
    """Counts texts and tokens and reports them: ``report(texts, total, details)``."""

    def __init__(self, report: Callable[[int, int, str], None], total: int):
        self.report, self.total = report, total
        self.texts, self.tokens, self.began = 0, 0, time.monotonic()
        self._tell()

    def wrote(self, tokens: int) -> None:
        self.tokens += tokens
        self._tell()

    def finished(self, row: int, generated: Any) -> None:
        self.texts += 1
        self._tell()

    def _tell(self) -> None:
        rate = self.tokens / max(time.monotonic() - self.began, 1e-9)
        self.report(self.texts, self.total, f"{self.tokens:,} tokens, {rate:,.0f} a second" if self.tokens else "")
