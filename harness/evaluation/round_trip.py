"""Checks that a task reaches the model unchanged: the chat template writes the prompts, and the tokenizer reproduces
prompts and references.

A template that leaves text out, or a tokenizer that drops a space, the case or a sign, makes right answers wrong
without any error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from harness.task import Task
from harness.types import Problem

if TYPE_CHECKING:
    from harness.models.chat_format import TextCodec

ITEMS = 16  # items checked per task, spread over its whole length
LONGEST = 8000  # characters of a reference that are checked
SHOWN = 24  # characters shown around the first difference


@dataclass(frozen=True)
class Mismatch:
    """A ``part`` of an item that is not reproduced, with both texts at the first difference.

    The part is its prompt, its prompt in the chat template, or its reference.
    """

    item: str
    part: str
    wanted: str
    got: str


@dataclass(frozen=True)
class RoundTrip:
    """The result for one task: the number of items checked, and the texts that are not reproduced."""

    task: str
    items: int
    lost: list[Mismatch]

    @property
    def warning(self) -> str | None:
        """One line for a run, None if all texts are reproduced."""
        if not self.lost:
            return None
        first, items = self.lost[0], len({lost.item for lost in self.lost})
        who = "chat template does not write" if "template" in first.part else "tokenizer does not reproduce"
        return (
            f"{self.task}: the {who} the text of {items} of {self.items} tested items; item "
            f"{first.item}: in its {first.part} {first.wanted!r} becomes {first.got!r}"
        )

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def check_task(task: Task, codec: TextCodec, problems: Sequence[Problem]) -> RoundTrip:
    """Encodes and decodes some prompts of ``task`` as they are sent to the model, and the references after them."""
    from harness.models.token_text import continuation, decoded

    # Spread the items over the whole task: kinds of problems are often grouped.
    step = max(1, len(problems) // ITEMS)
    chosen = problems[::step][:ITEMS]
    lost = []
    for problem in chosen:
        rendered = codec.render(problem.prompt)
        if lacking := _not_written(codec, problem, rendered):
            lost.append(Mismatch(problem.id, "prompt in the chat template", *_where(*lacking)))
        prompt = codec.encode(rendered)
        wanted, got = _without_specials(codec, rendered), decoded(codec.tokenizer, prompt)
        if got != wanted:
            lost.append(Mismatch(problem.id, "prompt", *_where(wanted, got)))
        reference = reference_text(task, problem)
        if reference:
            got = continuation(codec.tokenizer, prompt, codec.response_ids(prompt, reference, ended=False))
            if got != reference:
                lost.append(Mismatch(problem.id, "reference", *_where(reference, got)))
    return RoundTrip(task.title, len(chosen), lost)


def _not_written(codec: TextCodec, problem: Problem, rendered: str) -> tuple[str, str] | None:
    """The user's text and the rendered text from its beginning there, if a chat template does not write it whole."""
    instruction = problem.prompt.user.strip()  # templates may trim it
    if not (codec.tokenizer.chat_template and problem.prompt.chat) or instruction in rendered:
        return None
    shared = next((n for n in range(SHOWN, 0, -1) if instruction[:n] in rendered), 0)
    return instruction, rendered[rendered.index(instruction[:shared]) :] if shared else ""


def reference_text(task: Task, problem: Problem) -> str | None:
    """A right answer to the problem as a model would write it, None if the task has none."""
    reference = problem.reference
    if hasattr(reference, "canonical_solution"):
        return reference.canonical_solution[:LONGEST]
    if hasattr(task, "gold_completion"):
        return (task.gold_completion(problem) or "")[:LONGEST] or None
    return reference[:LONGEST] if isinstance(reference, str) else None


def _without_specials(codec: TextCodec, text: str) -> str:
    for token in sorted(codec.tokenizer.all_special_tokens, key=len, reverse=True):
        text = text.replace(token, "")
    return text


def _where(wanted: str, got: str) -> tuple[str, str]:
    """Both texts around their first difference."""
    at = next((i for i, (a, b) in enumerate(zip(wanted, got, strict=False)) if a != b), min(len(wanted), len(got)))
    start = max(0, at - SHOWN // 2)
    return wanted[start : at + SHOWN // 2], got[start : at + SHOWN // 2]


def check(model: str, names: Sequence[str]) -> list[RoundTrip]:
    """Checks a model's tokenizer on the named tasks, or on all tasks whose data is available.

    Raises BadInput for an unknown task or model, and for a model behind a server, whose tokenizer is not known.
    """
    from harness import registry
    from harness.errors import BadInput
    from harness.evaluation.benchmarks import open_unjudged
    from harness.micro.world import TASKS
    from harness.models import files

    model_files = files.locate(model)
    codec = files.text_codec(model_files)
    if codec is None:
        raise BadInput(f"--model {model}: the tokenizer of a served model is not known here; give a folder")
    trips = []
    for name in names or [entry.name for entry in registry.entries(registry.TASKS)]:
        try:
            task = open_unjudged(name)
        except BadInput:
            if names:
                raise
            if name not in TASKS:  # neither the benchmark's file nor generated problems exist
                continue
            task = open_unjudged(f"{name}@micro")
        trips.append(check_task(task, codec, task.items))
    return trips
