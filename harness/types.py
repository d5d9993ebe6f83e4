"""The data types that all parts share: frozen dataclasses without torch.

Prompt -> Completion -> Verdict        one item of a benchmark
Problem                                a question with the reference for grading
Decoding, Source                       how text is sampled, and which model or data set it comes from
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, NamedTuple


class Source(StrEnum):
    """The origin of the text of a training sequence."""

    DATA = "data"  # reference responses of the labelled examples
    TEACHER = "teacher"  # responses sampled from the teacher
    STUDENT = "student"  # responses sampled from the student with its current weights
    REPLAY = "replay"  # responses of the student at earlier steps, see Needs.replay
    MIXED = "mixed"  # responses that student and teacher sampled together, see Needs.joint


class Turn(NamedTuple):
    """A turn of a conversation; ``role`` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Prompt:
    """A prompt for models with and without a chat template.

    With a chat template the turns ``system``, ``history`` and ``user`` are rendered by it and ``prefill`` opens the
    assistant's turn. Without one, or if ``chat`` is False, the model continues ``plain``. ``history`` alternates
    between user and assistant.
    """

    user: str
    plain: str
    system: str | None = None
    prefill: str = ""
    chat: bool = True
    history: tuple[Turn, ...] = ()

    def turns(self) -> list[dict[str, str]]:
        """The conversation up to the answer, for chat templates and servers."""
        system_turns = [Turn("system", self.system)] if self.system is not None else []
        return [turn._asdict() for turn in (*system_turns, *self.history, Turn("user", self.user))]


@dataclass(frozen=True)
class Problem:
    """One item: ``id`` is unique in its task; ``reference`` is what the grader compares the answer with.

    ``follows`` is the id of the problem that the model answers before this one, in the same conversation: its question
    and the model's own answer to it, sample by sample, come before this prompt.
    """

    id: str
    prompt: Prompt
    reference: Any = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    follows: str = ""


@dataclass(frozen=True)
class Decoding:
    """How completions are sampled. ``temperature=0`` is greedy.

    ``stop`` strings end a completion that continues a text (a plain prompt, or a prefill) and are cut off. There they
    mark that the model starts to invent the next problem. A chat reply that the model starts itself ends with its turn
    and may contain them.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 512
    samples: int = 1
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Completion:
    """One answer of a model. ``text`` holds neither prompt nor stop string; ``finish``: stop or length."""

    problem_id: str
    sample: int
    text: str
    tokens: int
    finish: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Completion:
        """The completion of a stored row, which holds its verdict too."""
        return cls(*(row[each.name] for each in fields(cls)))


@dataclass(frozen=True)
class Verdict:
    """The result of grading one completion.

    ``score`` is in the range of the task's metric, [0, 1] unless it says otherwise (a win rate's tie is 0.5).
    ``error`` marks a grading that failed (a crashed grader, an unparsable judge), which is not the same
    as a wrong answer; its score is 0. ``words`` is what a judge wrote, for readers.
    """

    problem_id: str
    sample: int
    score: float
    reason: str
    extracted: str | None = None
    error: bool = False
    words: str | None = None


@dataclass(frozen=True)
class Example:
    """One training prompt. ``response`` is None if only a teacher can answer it.

    ``meta`` is passed to the step checker of the data (the ``verifier`` validity of vcrd). In a conversation the last
    ``taught`` turns of the assistant are learnt: the response, and those before it in ``prompt.history``. ``columns``
    are the text columns of a file's row, for templates of the teacher's own prompt.
    """

    id: str
    prompt: Prompt
    response: str | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)
    taught: int = 1
    columns: Mapping[str, str] = field(default_factory=dict)


SEEDS = range(2**31)  # of a training; also what servers accept as the seed of a text


def stable_seed(*parts: object) -> int:
    """A 63-bit seed that depends only on ``parts``: equal on every machine, independent for every purpose."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8", "backslashreplace")).digest()
    return int.from_bytes(digest[:8], "big") >> 1
