"""The interface of a place that runs a judging model, and the settings common to all model judges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from harness.grading.judges.protocols import Reply
from harness.options import option


class Model(Protocol):
    """Where a judge runs. ``ask`` raises :class:`harness.models.openai_client.Unanswered` and is called from
    ``parallel`` threads."""

    parallel: int

    def identity(self) -> dict[str, Any]: ...

    def ask(self, messages: list[dict[str, str]], temperature: float, max_tokens: int, top_logprobs: int) -> Reply: ...


@dataclass(frozen=True)
class JudgeOptions:
    """Settings of every model judge, written after commas in its specification."""

    protocol: str | None = option(
        None, "how the judge is asked: alpacaeval-1, alpacaeval-2, arena-hard, distillm2 or mt-bench"
    )
    temperature: float | None = option(None, "sampling temperature; the protocol's unless set", low=0, high=2)
    max_tokens: int | None = option(
        None, "longest reply, the reasoning before the verdict included; the protocol's unless set", low=1
    )
