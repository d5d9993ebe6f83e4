"""The cache of a judge's answers: no question is paid for twice, and an interrupted run continues.

One file per judge identity (model, revision, prompt, temperature), one line per answered question.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.cache_file import CacheFile


@dataclass(frozen=True)
class CachedReply:
    """A verdict: the share in [0, 1] of the response shown first, the reply that it was read from, and the model."""

    share: float
    reply: str = ""
    model: str = ""  # the model that the server reports


class JudgementCache:
    """Answers by question key, in ``folder``. Threads may share it, and processes the file.

    Raises BadInput, before any question is paid for, if the folder cannot be written.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]):
        self._journal = CacheFile(folder, identity)
        self.path = self._journal.path
        self._answers: dict[str, CachedReply] = dict(self._journal.read(_reply))

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> CachedReply:
        return self._answers[key]

    def add(self, key: str, answer: CachedReply) -> None:
        """Stores an answer on disk. Raises RunFailed if it cannot be written."""
        self._answers[key] = answer
        self._journal.add({key: dataclasses.asdict(answer)})


def _reply(fields: dict[str, Any]) -> CachedReply | None:
    """A kept answer, or None where its fields are not those of one."""
    share, words = fields.get("share"), [fields[key] for key in fields.keys() - {"share"}]
    sound = type(share) in (int, float) and 0 <= share <= 1 and fields.keys() <= {"share", "reply", "model"}
    return CachedReply(**fields) if sound and all(isinstance(word, str) for word in words) else None
