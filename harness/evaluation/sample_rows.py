"""Parses a file of completions into rows, in one of the known formats.

=====================  ==============================  ===============================================
format                 a row names its problem by      and holds the text under
=====================  ==============================  ===============================================
own completions        problem_id                      text (with sample, tokens, finish where known)
evalplus samples       task_id                         solution or completion
alpaca_eval outputs    instruction                     output
FastChat's answers     question_id                     choices, of which each has its turns
raw outputs            problem_id, unique_id, id, idx  completion, output, code or generation
=====================  ==============================  ===============================================

Fields are listed in order of preference. ``idx`` is the position in the dataset file, from 0. A list under a text field
of raw outputs holds several samples (Qwen2.5-Math's ``code``); turn n of FastChat's question q answers the problem
``q/n``. A file is JSON lines or one JSON list, gzipped or not; all of its rows have one format.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import safe_read
from harness.errors import BadInput


@dataclass(frozen=True)
class Format:
    """One line of the table. Only tasks with this ``samples_as`` read it; None: all tasks do."""

    name: str
    keys: tuple[str, ...]
    texts: tuple[str, ...]
    samples_as: str | None = None

    @property
    def needs(self) -> str:
        return f"{' or '.join(self.keys)} with {' or '.join(self.texts)}"


OWN = Format("own completions", ("problem_id",), ("text",))
EVALPLUS = Format("evalplus samples", ("task_id",), ("solution", "completion"), "evalplus")
ALPACA = Format("alpaca_eval outputs", ("instruction",), ("output",), "alpaca_eval")
RAW = Format("raw outputs", ("problem_id", "unique_id", "id", "idx"), ("completion", "output", "code", "generation"))
FASTCHAT = "fastchat"  # the ``samples_as`` of tasks whose answers may come as FastChat's; see turns_apart
FORMATS = (OWN, EVALPLUS, ALPACA, RAW)  # a row has the first format that it fits


@dataclass(frozen=True)
class SampleRow:
    """An object of the file without null fields, and its ``place``, FILE:LINE."""

    place: str
    fields: Mapping[str, Any]

    def fits(self, form: Format) -> bool:
        return any(key in self.fields for key in form.keys) and any(text in self.fields for text in form.texts)


def read_rows(path: Path) -> list[SampleRow]:
    """The rows of ``path``. Raises BadInput for a file that holds none, naming the line that is malformed."""
    rows = list(_rows(content_of(path).removeprefix(safe_read.BYTE_ORDER_MARK), path))
    if not rows:
        raise BadInput(f"{path}: holds no completions")
    return rows


def turns_apart(rows: Sequence[SampleRow]) -> list[SampleRow]:
    """The rows, one for each turn where they are FastChat's. Raises BadInput for a malformed conversation."""
    found = []
    for row in rows:
        question, choices = row.fields.get("question_id"), row.fields.get("choices")
        if question is None or choices is None:
            found.append(row)
            continue
        for i, choice in enumerate(choices if isinstance(choices, list) else [None]):
            turns = choice.get("turns") if isinstance(choice, dict) else None
            if not isinstance(turns, list) or not turns:
                raise BadInput(f"{row.place}: 'choices' must be a list of objects with a list under 'turns'")
            sampled = choice.get("index", i)
            found += [
                SampleRow(row.place, {"problem_id": f"{question}/{n}", "sample": sampled, "text": text})
                for n, text in enumerate(turns, 1)
            ]
    return found


def content_of(path: Path) -> bytes:
    """The bytes of a file of completions, unpacked where gzip packed them. Raises BadInput."""
    try:
        content = safe_read.content(path, safe_read.LARGE)
        return safe_read.unpacked(content) if content.startswith(safe_read.GZIP) else content
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None


def format_of(rows: Sequence[SampleRow], samples_as: str) -> Format:
    """The format of ``rows``: a general one or ``samples_as``. Raises BadInput for a row of no or of another format."""
    accepted = [form for form in FORMATS if form.samples_as in (None, samples_as)]
    first = _first_fit(rows[0], accepted)
    for row in rows:
        form = _first_fit(row, accepted)
        if form is None:
            needs = first.needs if first else "; or ".join(form.needs for form in accepted)
            has = ", ".join(shown(key) for key in row.fields) or "nothing"
            raise BadInput(f"{row.place}: needs {needs}; it has {has}")
        if form is not first:
            raise BadInput(f"{row.place}: is of {form.name}, {rows[0].place} of {first.name}; grade them apart")
    return first


def shown(value: Any) -> str:
    """``value`` in a message: short, without control characters."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def _first_fit(row: SampleRow, forms: Sequence[Format]) -> Format | None:
    return next((form for form in forms if row.fits(form)), None)


def _rows(content: bytes, path: Path) -> Iterator[SampleRow]:
    if content.lstrip().startswith(b"["):
        for number, value in enumerate(_json(content, path, 1), 1):
            yield _row(value, f"{path}: item {number}")
        return
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            yield _row(_json(line, path, number), f"{path}:{number}")


def _row(value: Any, place: str) -> SampleRow:
    if not isinstance(value, dict):
        raise BadInput(f"{place}: expected a JSON object, found {shown(value)}")
    return SampleRow(place, {key: field for key, field in value.items() if field is not None})


def _json(content: bytes, path: Path, line: int) -> Any:
    """The value of ``content``, which begins at ``line``."""
    try:
        return json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        line += content.count(b"\n", 0, error.start)
        raise BadInput(f"{path}:{line}: is not UTF-8 text") from None
    except json.JSONDecodeError as error:
        raise BadInput(f"{path}:{line + error.lineno - 1}: is not JSON ({error.msg})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
        raise BadInput(f"{path}:{line}: is not JSON that can be read ({error})") from None
