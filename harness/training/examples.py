"""Training prompts: from the micro world or from rows of any source, always as :class:`harness.types.Example`."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import BadInput
from harness.models.files import MICRO
from harness.recipe import DataSources
from harness.training_data import columns, plain, source
from harness.types import Example


@dataclass(frozen=True)
class ExamplePool:
    """The examples of one source. ``told`` says in words what was read; ``facts`` are for the record."""

    examples: list[Example] = field(default_factory=list)
    told: str = ""
    facts: Mapping[str, str | int | None] = field(default_factory=dict)


def load(name: str, sources: DataSources, *, labelled: bool, limit: int | None = None) -> list[Example]:
    """The examples of :func:`read`."""
    return read(name, sources, labelled=labelled, limit=limit).examples


def read(
    name: str, sources: DataSources, *, labelled: bool, limit: int | None = None, written: bool = False
) -> ExamplePool:
    """The first ``limit`` examples that ``name`` leads to. Raises BadInput with file and row.

    ``labelled`` demands responses. ``written``: the prompts of rows in the form ``data.plain``, for a model that is
    asked without a chat template.
    """
    if name.startswith(MICRO):
        return _generated(name, limit)
    rows = source.open_rows(name, limit)
    if not rows.rows:
        raise BadInput(f"training data {name}: holds no rows")
    fields = columns.choose(rows, sources, labelled=labelled)
    examples = list(columns.examples(rows, fields, sources, labelled=labelled))
    if not examples:
        raise BadInput(f"training data {name}: every row is empty")
    skipped = len(rows.rows) - len(examples)
    examples = plain.written(examples, sources.plain) if written else examples
    opened = "".join(f", {key} {value}" for key, value in rows.facts.items() if value is not None)
    opened += f", {skipped} empty rows skipped" if skipped else ""
    facts = {"source": _portable(name), "columns": fields.told(), **rows.facts}
    facts |= {"skipped": skipped} if skipped else {}
    return ExamplePool(examples, f"{rows.name}{opened}, from {fields.told()}", facts)


def _generated(name: str, limit: int | None) -> ExamplePool:
    """The micro world's split, or its beginning."""
    from harness.micro.world import examples

    address = source.parse(name)
    address.without("config", "split", "revision")
    bound = min((n for n in (limit, address.first) if n is not None), default=None)
    return ExamplePool(examples(address.name.removeprefix(MICRO))[:bound], f"{name}, generated", {"source": name})


def _portable(name: str) -> str:
    """A source without the folders of this machine."""
    return Path(name).name if Path(name).is_absolute() else name


def fingerprint(examples: Sequence[Example]) -> str:
    """sha256 of what the examples ask and answer: part of the training specification."""
    return deque(_fingerprints(examples), maxlen=1)[0] if examples else hashlib.sha256().hexdigest()


def beginning(examples: Sequence[Example], wanted: str) -> int | None:
    """How many examples, from the first, have the fingerprint ``wanted``; None where no beginning has it."""
    return next((n for n, found in enumerate(_fingerprints(examples), 1) if found == wanted), None)


def _fingerprints(examples: Sequence[Example]) -> Iterator[str]:
    """The fingerprint of every beginning, the shortest first."""
    digest = hashlib.sha256()
    for e in examples:
        # What only conversations have is added for them alone, which keeps the fingerprints of single turns.
        more = [e.prompt.history, e.taught] if e.prompt.history else []
        digest.update(json.dumps([e.id, e.prompt.system, e.prompt.user, e.prompt.plain, e.response, *more]).encode())
        yield digest.hexdigest()


def checker(name: str):
    """The step checker that comes with the training prompts ``name``, or None where there is none."""
    if not name.startswith(MICRO):
        return None
    from harness.micro.world import check_step

    return check_step


def same_step(name: str):
    """The rule by which two steps of the training prompts ``name`` say the same, or None where there is none."""
    if not name.startswith(MICRO):
        return None
    from harness.micro.world import same_step

    return same_step
