"""Training prompts: from the micro world or from a file of rows, always as :class:`harness.types.Example`."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness import safe_read
from harness.data import parse
from harness.errors import BadInput
from harness.recipe import DataSources
from harness.types import Example, Prompt

MICRO = "micro:"
BELOW_DATA = "data:"


def load(name: str, sources: DataSources, *, labelled: bool) -> list[Example]:
    """The examples that ``name`` leads to. Raises BadInput with file and line; ``labelled`` demands responses."""
    if name.startswith(MICRO):
        from harness.micro.world import examples

        return examples(name.removeprefix(MICRO))
    path = Path(name)
    if name.startswith(BELOW_DATA):
        root = os.environ.get("HARNESS_DATA")
        if not root:
            raise BadInput(f"{name} is below HARNESS_DATA, which is not set; set it, or give a file")
        path = Path(root) / name.removeprefix(BELOW_DATA)
    try:
        content = safe_read.content(path, safe_read.LARGE)
    except BadInput as error:
        raise BadInput(f"training prompts {name}: {error}") from None
    found = []
    for number, row in enumerate(parse(content, path), 1):
        prompt, response = row.get(sources.prompt_field), row.get(sources.response_field)
        if not isinstance(prompt, str) or not prompt:
            raise BadInput(f"{path}: row {number} has no text under {sources.prompt_field!r}; set data.prompt_field")
        if labelled and not isinstance(response, str):
            raise BadInput(
                f"{path}: row {number} has no text under {sources.response_field!r}; set data.response_field"
            )
        asked = Prompt(user=prompt, plain=prompt, system=sources.system)
        found.append(Example(str(number), asked, response if labelled else None, {}))
    if not found:
        raise BadInput(f"training prompts {name}: the file holds no rows")
    return found


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
        digest.update(json.dumps([e.id, e.prompt.system, e.prompt.user, e.prompt.plain, e.response]).encode())
        yield digest.hexdigest()


def checker(name: str):
    """The step checker that comes with the training prompts ``name``, or None where there is none."""
    if not name.startswith(MICRO):
        return None
    from harness.micro.world import check_step

    return check_step
