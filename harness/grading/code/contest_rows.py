"""Rows of LiveCodeBench's code generation files: the question, its window, and its tests, some of them packed.

Hidden tests are JSON, or JSON in a pickle in zlib in base64. Only a text may come out of that pickle: nothing in it is
looked up or called.
"""

from __future__ import annotations

import base64
import binascii
import io
import json
import os
import pickle
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from harness.errors import BadInput
from harness.grading.code.contest import ContestProblem

UNPACKED = 2**30  # bytes of the tests of a problem
FIELDS = ("question_id", "question_content", "contest_date", "public_test_cases", "private_test_cases")


def read(row: Mapping[str, Any], where: str) -> ContestProblem:
    """The problem of a row. Raises BadInput with ``where`` and the field that is missing or malformed."""
    for field in FIELDS:
        if not isinstance(row.get(field), str):
            raise BadInput(f"{where} has no text under {field!r}; this is no file of LiveCodeBench's code generation")
    try:
        facts = json.loads(row.get("metadata") or "{}")
        tests = [*json.loads(row["public_test_cases"]), *_hidden(row["private_test_cases"])]
        inputs, outputs = (tuple(str(test[key]) for test in tests) for key in ("input", "output"))
        problem = ContestProblem(row["question_id"], str(facts.get("func_name") or ""), inputs, outputs)
        problem.arguments()
        if problem.name:
            [json.loads(output) for output in outputs]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInput(f"{where} ({row['question_id']}): its tests cannot be read ({error})") from None
    if not inputs:
        raise BadInput(f"{where} ({row['question_id']}) has no tests")
    return problem


def accepted(name: str) -> str | None:
    """A program for the problem that LiveCodeBench published as right; None where it published none.

    LiveCodeBench publishes what models wrote with its verdicts (repository LiveCodeBench/submissions); any of these
    files may be put below ``$HARNESS_DATA/livecodebench/submissions/``.
    """
    return _published(os.environ.get("HARNESS_DATA", "")).get(name)


@cache
def _published(folder: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in sorted((Path(folder) / "livecodebench/submissions").glob("*.json")) if folder else ():
        for row in json.loads(path.read_text("utf-8")):
            right = [code for code, passed in zip(row["code_list"], row["graded_list"], strict=True) if passed]
            if right:
                found.setdefault(row["question_id"], right[0])
    return found


def _hidden(text: str) -> list[Any]:
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        unpacked = zlib.decompressobj().decompress(base64.b64decode(text.encode(), validate=True), UNPACKED)
        found = _TextAlone(io.BytesIO(unpacked)).load()
    except (binascii.Error, zlib.error, pickle.UnpicklingError, EOFError, IndexError) as error:
        raise ValueError(f"private_test_cases: {error}") from None
    if not isinstance(found, str):
        raise ValueError("private_test_cases: its pickle holds no text")
    return json.loads(found)


class _TextAlone(pickle.Unpickler):
    """A pickle that names anything to be imported is refused."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"its pickle asks for {module}.{name}")
