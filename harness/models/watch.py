"""What is heard of texts while they are written: tokens as they come, and every text once it is whole."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


class Watch:
    """Hears of every token and every text. By itself it does nothing."""

    def wrote(self, tokens: int) -> None:
        """``tokens`` more were sampled, one for each text under way."""

    def finished(self, row: int, made: Any) -> None:
        """The text of request ``row`` is whole: :class:`harness.models.generate.Generated`, or a kept answer."""


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

    def finished(self, row: int, made: Any) -> None:
        self.texts += 1
        self._tell()

    def _tell(self) -> None:
        rate = self.tokens / max(time.monotonic() - self.began, 1e-9)
        self.report(self.texts, self.total, f"{self.tokens:,} tokens, {rate:,.0f} a second" if self.tokens else "")
