"""The prompt and the reference of every problem of a record, for readers of its completions.

Completions are stored without their questions, because a benchmark's files are not ours to publish. The questions are
read again from the benchmark that the record names, and only where its content is the one the record was measured on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from harness import data
from harness.errors import BadInput
from harness.evaluation.benchmarks import GENERATED, LM_EVAL, locate, open_unjudged
from harness.types import Problem

REFERENCE_FIELDS = ("canonical_solution", "text", "answer")  # the part of a structured reference that a person reads
LONGEST = 4000  # characters of one without such a part; longer ones, as the tests of a contest problem, are not shown


def of(record: Mapping[str, Any], fetch: bool = True) -> tuple[dict[str, Problem], str]:
    """The problems of a record by id, and the reason if there are none (else "").

    The reasons: the benchmark's files are missing, they changed since, or the task belongs to lm-eval. ``fetch``
    allows a download of missing files.
    """
    title = record["task"]
    if title.startswith(LM_EVAL):
        return {}, f"{title}: lm-eval keeps its own questions"
    dataset = record["protocol"].get("dataset")
    measured_on = dataset.get("sha256") if isinstance(dataset, Mapping) else None
    if not measured_on:
        return {}, f"{title}: the record of {record['run_id']} does not say what data it was measured on"
    name = title if "@" in title else f"{title}@real"
    if not fetch and (away := _away(name)):
        return {}, away
    protocol = record["protocol"].get("name")
    try:
        task = open_unjudged(name, protocol) if protocol else open_unjudged(name)
    except BadInput:
        try:
            task = open_unjudged(name)
        except BadInput as error:
            return {}, str(error)
    if task.data.sha256 != measured_on:
        return {}, f"{title}: the data on this machine are not those that {record['run_id']} was measured on"
    return {problem.id: problem for problem in task.items}, ""


def _away(name: str) -> str:
    """Why the problems of a task cannot be read without a download; "" if they can."""
    try:
        task_class, world = locate(name)
    except BadInput as error:
        return str(error)
    if world in GENERATED or data.at_hand(task_class.dataset):
        return ""
    return f"the files of {name} are not on this machine (HARNESS_DATA)"


def prompt_text(problem: Problem) -> str:
    """The question as a person reads it, before any chat template."""
    return problem.prompt.user if problem.prompt.chat else problem.prompt.plain


def reference_text(problem: Problem) -> str | None:
    """The reference as a person reads it: the answer, the canonical program or the reference text.

    All of several references, with ``or`` between them; None for one that no person reads.
    """
    reference = problem.reference
    if reference is None or isinstance(reference, str):
        return reference
    if isinstance(reference, tuple | list) and reference and all(isinstance(each, str) for each in reference):
        return "\n\nor\n\n".join(reference)
    for field in REFERENCE_FIELDS:
        value = reference.get(field) if isinstance(reference, Mapping) else getattr(reference, field, None)
        if isinstance(value, str):
            return value
    shown = str(reference)
    return shown if len(shown) <= LONGEST else None
