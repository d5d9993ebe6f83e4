"""What a judge has answered, kept so that no question is paid for twice and a broken run goes on.

One append-only file per judge identity (model, revision, prompt, temperature): a line per answered question.
A line that a crash tore is skipped, and the question is asked again.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import BadInput, RunFailed


def digest(content: Any) -> str:
    """The sha256 of a JSON value, the same for the same content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Answer:
    """A verdict: the share in [0, 1] of the response shown first, the reply it was read from, and whose."""

    share: float
    reply: str = ""
    model: str = ""  # what the server says it ran


class JudgementCache:
    """Answers by question key, in ``folder``. Threads may share it, and processes the file.

    Raises BadInput when the folder cannot be written, before any question is paid for.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]):
        self.path = folder / f"{digest(identity)[:16]}.jsonl"
        self._lock = threading.Lock()
        self._answers: dict[str, Answer] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # unbuffered: each line is one append, which other processes cannot cut in two
            self._file = self.path.open("a+b", buffering=0)
            self._load()
        except OSError as error:
            raise BadInput(f"judgements cannot be kept in {folder}: {error.strerror}") from None

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> Answer:
        return self._answers[key]

    def add(self, key: str, answer: Answer) -> None:
        """Keep an answer; it is on disk when this returns. Raises RunFailed when it cannot be written."""
        line = json.dumps({"key": key, **dataclasses.asdict(answer)}) + "\n"
        with self._lock:
            self._answers[key] = answer
            try:
                self._file.write(line.encode())
                os.fsync(self._file.fileno())
            except OSError as error:
                raise RunFailed(f"a judgement cannot be kept: {error.strerror}; earlier ones are") from None

    def _load(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        for line in content.split(b"\n"):
            try:
                fields = json.loads(line)
                key, answer = fields.pop("key"), Answer(**fields)
                if 0 <= answer.share <= 1:
                    self._answers[key] = answer
            except (ValueError, AttributeError, KeyError, TypeError):
                continue  # torn by a crash: the question is asked again
        if content and not content.endswith(b"\n"):
            self._file.write(b"\n")  # so that the next answer does not continue the torn line
