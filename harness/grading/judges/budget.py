"""The cost of judging: estimated before the first question, counted while it runs, never over the budget."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from harness.errors import BadInput
from harness.grading.judges.protocols import Reply

BYTES_PER_TOKEN = 3  # bytes of prompt per token; 4 is usual for English, so this overestimates
TURN_TOKENS = 8  # that a chat template adds to a turn


class JudgeBudget:
    """Tokens and money of one judge. ``price_in`` and ``price_out`` are USD per million tokens.

    Raises BadInput if a limit is given without prices.
    """

    def __init__(self, limit_usd: float | None = None, price_in: float | None = None, price_out: float | None = None):
        if limit_usd is not None and (price_in is None or price_out is None):
            raise BadInput("budget_usd needs price_in and price_out, the judge's USD per million tokens")
        self.limit_usd, self.price_in, self.price_out = limit_usd, price_in or 0.0, price_out or 0.0
        self.spent_usd = 0.0
        self._reserved = 0.0
        self._lock = threading.Lock()

    def estimate(self, messages: Sequence[Mapping[str, str]], max_tokens: int) -> tuple[int, float]:
        """Tokens and USD that one question costs at most, by its bytes and the longest reply."""
        texts = [m["content"].encode("utf-8", "replace") for m in messages]
        prompt = sum(len(text) // BYTES_PER_TOKEN + TURN_TOKENS for text in texts)
        return prompt + max_tokens, self._price(prompt, max_tokens)

    def check(self, questions: int, tokens: int, usd: float) -> None:
        """Raises BadInput, before any question, if the estimate is above the limit."""
        if self.limit_usd is not None and usd > self.limit_usd:
            raise BadInput(
                f"judging {questions} questions may cost ${usd:.4g} ({tokens} tokens), over "
                f"budget_usd={self.limit_usd:g}; raise it, or grade fewer completions (answers are kept)"
            )

    def reserve(self, usd: float) -> bool:
        """Reserves ``usd`` for a question; False if that could exceed the limit."""
        with self._lock:
            if self.limit_usd is not None and self.spent_usd + self._reserved + usd > self.limit_usd + 1e-9:
                return False
            self._reserved += usd
            return True

    def settle(self, usd: float, reply: Reply | None) -> None:
        """Replaces the reserved amount by the one used, or keeps it if the server does not report usage."""
        with self._lock:
            self._reserved -= usd
            if reply is not None:
                told = reply.prompt_tokens + reply.completion_tokens > 0
                self.spent_usd += self._price(reply.prompt_tokens, reply.completion_tokens) if told else usd

    def _price(self, prompt: int, completion: int) -> float:
        return (prompt * self.price_in + completion * self.price_out) / 1e6
