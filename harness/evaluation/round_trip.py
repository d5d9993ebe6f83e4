"""Whether a tokenizer gives back what a task writes: prompts and references to tokens, and to text again.

A tokenizer that drops a space, a case or a sign makes right answers wrong without any error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from harness.task import Task
from harness.types import Problem

if TYPE_CHECKING:
    from harness.models.text_codec import TextCodec

ITEMS = 16  # of a task that are tried, spread over its whole length
LONGEST = 8000  # characters of a reference that are tried
SHOWN = 24  # characters around the first difference


@dataclass(frozen=True)
class Lost:
    """What of an item does not come back: its ``part`` (prompt or reference), and both texts where they part."""

    item: str
    part: str
    wanted: str
    got: str


@dataclass(frozen=True)
class Tried:
    """The round trip of one task: how many items were tried, and what was lost."""

    task: str
    items: int
    lost: list[Lost]

    @property
    def warning(self) -> str | None:
        """One line for a run, None where all came back."""
        if not self.lost:
            return None
        first, items = self.lost[0], len({lost.item for lost in self.lost})
        return (
            f"{self.task}: the tokenizer does not give back the text of {items} of {self.items} items tried; item "
            f"{first.item}: in its {first.part} {first.wanted!r} comes back as {first.got!r}"
        )

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def tried(task: Task, speaker: TextCodec, problems: Sequence[Problem]) -> Tried:
    """Some prompts of ``task`` as they are sent, and their references behind them, through the tokenizer and back."""
    from harness.models.token_text import continuation, decoded

    step = max(1, len(problems) // ITEMS)
    chosen = problems[::step][:ITEMS]
    lost = []
    for problem in chosen:
        rendered = speaker.render(problem.prompt)
        prompt = speaker.encode(rendered)
        wanted, got = _without_specials(speaker, rendered), decoded(speaker.tokenizer, prompt)
        if got != wanted:
            lost.append(Lost(problem.id, "prompt", *_where(wanted, got)))
        reference = reference_text(task, problem)
        if reference:
            got = continuation(speaker.tokenizer, prompt, speaker.response_ids(prompt, reference, ended=False))
            if got != reference:
                lost.append(Lost(problem.id, "reference", *_where(reference, got)))
    return Tried(task.title, len(chosen), lost)


def reference_text(task: Task, problem: Problem) -> str | None:
    """A right answer to the problem as a model would write it, None where the task states none."""
    reference = problem.reference
    if hasattr(reference, "canonical_solution"):
        return reference.canonical_solution[:LONGEST]
    if hasattr(task, "gold_completion"):
        return task.gold_completion(problem)[:LONGEST]
    return reference[:LONGEST] if isinstance(reference, str) else None


def _without_specials(speaker: TextCodec, text: str) -> str:
    for token in sorted(speaker.tokenizer.all_special_tokens, key=len, reverse=True):
        text = text.replace(token, "")
    return text


def _where(wanted: str, got: str) -> tuple[str, str]:
    """Both texts around the first place where they differ."""
    at = next((i for i, (a, b) in enumerate(zip(wanted, got, strict=False)) if a != b), min(len(wanted), len(got)))
    start = max(0, at - SHOWN // 2)
    return wanted[start : at + SHOWN // 2], got[start : at + SHOWN // 2]


def check(model: str, names: Sequence[str]) -> list[Tried]:
    """The round trip of a model's tokenizer on the named tasks, or on all whose data is at hand.

    Raises BadInput for an unknown task or model, and for one behind a server, whose tokenizer is not known.
    """
    from harness import registry
    from harness.errors import BadInput
    from harness.evaluation.benchmarks import open_unjudged
    from harness.micro.world import TASKS
    from harness.models import files

    found = files.locate(model)
    speaker = files.text_codec(found)
    if speaker is None:
        raise BadInput(f"--model {model}: the tokenizer of a served model is not known here; give a folder")
    trips = []
    for name in names or [entry.name for entry in registry.entries(registry.TASKS)]:
        try:
            task = open_unjudged(name)
        except BadInput:
            if names:
                raise
            if name not in TASKS:  # neither the benchmark's file nor generated problems are here
                continue
            task = open_unjudged(f"{name}@micro")
        trips.append(tried(task, speaker, task.items))
    return trips
