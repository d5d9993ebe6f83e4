"""Reads rows as examples: the meaning of columns, and the form of conversations.

    prompt, response              text, by these names, by common other names, or by the names that a recipe gives
    instruction, input, output    Alpaca's; the input goes below the instruction
    prompt, completion            lists of turns {"role", "content"}, TRL's conversational form
    messages                      a conversation; all of the assistant's turns are learnt
    system, system_prompt         text: the system turn of a row that does not begin with one
    history                       LLaMA-Factory's: earlier pairs of question and answer, in front of a prompt of text

A common name is used only if it is the only one present; ambiguous rows are refused with the setting that decides.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from harness import safe_read
from harness.errors import BadInput
from harness.models.files import MICRO
from harness.recipe import DataSources
from harness.training_data import plain_prompts, source
from harness.training_data.source import Rows, each
from harness.types import Example, Prompt, Turn

PROMPTS = ("prompt", "question", "instruction", "problem", "query")  # the first wins, the others are equal
RESPONSES = ("response", "completion", "answer", "output", "solution")
CHATS = ("messages", "conversations")
SYSTEMS = ("system", "system_prompt")
ALPACA, BELOW, EARLIER = "instruction", "input", "history"
ROLES = {"system": "system", "developer": "system", "user": "user", "human": "user"}
ROLES |= {"assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant"}
KEYS = (("role", "content"), ("from", "value"))  # of a turn: current names, and ShareGPT's


@dataclass(frozen=True)
class Fields:
    """The columns to read. ``messages`` replaces all others; ``response`` is None if none is read."""

    messages: str | None = None
    prompt: str | None = None
    below: str | None = None
    response: str | None = None
    system: str | None = None
    history: str | None = None

    def in_words(self) -> str:
        """The columns in words."""
        columns = (self.messages, self.system, self.history, self.prompt, self.below, self.response)
        return " and ".join(column for column in columns if column)


def choose(rows: Rows, sources: DataSources, *, labelled: bool) -> Fields:
    """The columns with prompts and, if ``labelled``, responses. Raises BadInput if they are ambiguous."""
    if sources.messages_field and (sources.prompt_field or sources.response_field):
        raise BadInput("data.messages_field replaces prompt and response: remove the other two, or this one")
    for name, key in (
        (sources.messages_field, "messages_field"),
        (sources.prompt_field, "prompt_field"),
        (sources.response_field if labelled else None, "response_field"),
        (sources.system_field, "system_field"),
    ):
        if name and name not in rows.columns and name.partition(".")[0] not in rows.columns:
            raise BadInput(f"{rows.name}: no column {name!r}, only {_list(rows.columns)}; set data.{key}")
    systems = [c for c in SYSTEMS if c in rows.columns]
    if sources.system_field is None and len(systems) > 1:
        raise _open(rows, systems, "data.system_field=NAME (empty: neither)")
    system = (systems or [None])[0] if sources.system_field is None else sources.system_field or None
    if sources.messages_field:
        return Fields(messages=sources.messages_field, system=system)
    chats = [] if sources.prompt_field or sources.response_field else [c for c in CHATS if c in rows.columns]
    prompts = [c for c in PROMPTS if c in rows.columns]
    prompts = prompts[:1] if prompts[:1] == list(PROMPTS[:1]) else prompts
    if len(chats) > 1 or (chats and prompts):
        raise _open(rows, [*chats, *prompts], f"data.messages_field={chats[0]} or data.prompt_field=NAME")
    if chats:
        return Fields(messages=chats[0], system=system)
    prompt = sources.prompt_field or _only(rows, prompts, PROMPTS, "prompts", "data.prompt_field")
    response = None
    if labelled:
        candidates = [c for c in RESPONSES if c in rows.columns and c != prompt]
        candidates = candidates[:1] if candidates[:1] == list(RESPONSES[:1]) else candidates
        response = sources.response_field or _only(rows, candidates, RESPONSES, "responses", "data.response_field")
    below = BELOW if prompt == ALPACA and BELOW in rows.columns else None
    return Fields(None, prompt, below, response, system, EARLIER if EARLIER in rows.columns else None)


def _only(rows: Rows, candidates: Sequence[str], names: Sequence[str], what: str, key: str) -> str:
    if not candidates:
        raise BadInput(f"{rows.name}: no column of {what} ({_list(names)}), only {_list(rows.columns)}; set {key}")
    if len(candidates) > 1:
        raise _open(rows, candidates, f"{key}=NAME")
    return candidates[0]


def _open(rows: Rows, candidates: Sequence[str], keys: str) -> BadInput:
    return BadInput(f"{rows.name}: the columns {' and '.join(candidates)} are both possible; set {keys}")


def _list(names: Sequence[str]) -> str:
    return ", ".join(names) if names else "none"


class Empty(BadInput):
    """A row without a prompt, or without the required answer."""


def examples_of(rows: Rows, fields: Fields, sources: DataSources, *, labelled: bool) -> Iterator[Example]:
    """The examples of the rows, numbered from 1. Raises BadInput with file and row for one that is malformed.

    With ``data.empty = "skip"`` a row is also skipped for a missing answer that only labelled data would read, so that
    both pools of one file have the same rows.
    """
    skips, answer = sources.empty == "skip", None
    if skips and not labelled and not fields.messages:
        with contextlib.suppress(BadInput):  # a file without answers
            answer = choose(rows, sources, labelled=True).response
    if sources.teacher_field is not None and sources.teacher_field not in rows.columns:
        columns = _list(rows.columns)
        raise BadInput(f"{rows.name}: no column {sources.teacher_field!r} (data.teacher_field), only {columns}")
    for number, row in each(rows):
        reading = _Row(rows.name, number, row, sources.system, sources.teacher_field)
        try:
            reading = replace(reading, system=reading.system_text(fields.system))
            if fields.messages:
                yield reading.conversation(fields.messages, labelled)
            else:
                if answer is not None and _is_empty(reading.at(answer)):
                    continue
                yield reading.pair(fields)
        except Empty as error:
            if not skips:
                raise BadInput(f"{error}; fix the row, or set data.empty=skip") from None


@dataclass(frozen=True)
class _Row:
    """One row being read."""

    file: str
    number: int
    row: Mapping[str, Any]
    system: str | None
    teacher: str | None = None  # the column that names the row's teacher

    def pair(self, fields: Fields) -> Example:
        """A prompt, and its response if one is read; each is text or a list of turns."""
        assert fields.prompt is not None
        value = self.at(fields.prompt)
        if isinstance(value, list):
            turns = self._turns(value, fields.prompt)
            if turns[-1].role != "user":
                self._refuse(f"ends with a turn of the {turns[-1].role} under {fields.prompt!r}, not of the user")
        else:
            text = self._text(value, f"under {fields.prompt!r}")
            below = self.at(fields.below) if fields.below else None
            if below is not None and not isinstance(below, str):
                self._refuse(f"holds {_kind(below)} under {fields.below!r}, not text")
            turns = [Turn("user", f"{text}\n\n{below}" if below and below.strip() else text)]
            turns = [*self._earlier(fields.history), *turns]
        if fields.response is None:
            return self._example(turns, [])
        answer = self.at(fields.response)
        if not isinstance(answer, list):
            return self._example(turns, [Turn("assistant", self._text(answer, f"under {fields.response!r}"))])
        answers = self._turns(answer, fields.response, first="assistant")
        if answers[-1].role != "assistant":
            self._refuse(f"ends with a turn of the {answers[-1].role} under {fields.response!r}: no answer to learn")
        return self._example(turns, answers)

    def system_text(self, field: str | None) -> str | None:
        """The text of the row's system column; the recipe's if it is empty."""
        value = self.at(field) if field else None
        if value is not None and not isinstance(value, str):
            self._refuse(f"holds {_kind(value)} under {field!r}, not text (data.system_field)")
        return value if value and value.strip() else self.system

    def _earlier(self, field: str | None) -> list[Turn]:
        """The turns of earlier pairs of question and answer."""
        pairs = self.at(field) if field else None
        if not isinstance(pairs or [], list):
            self._refuse(f"holds {_kind(pairs)} under {field!r}, not pairs of question and answer")
        turns = []
        for place, pair in enumerate(pairs or [], 1):
            if not isinstance(pair, list) or len(pair) != 2:
                self._refuse(f"has no pair of question and answer in place {place} under {field!r}")
            where = f"in place {place} under {field!r}"
            turns += [Turn(r, self._text(t, where)) for r, t in zip(("user", "assistant"), pair, strict=True)]
        return turns

    def conversation(self, field: str, labelled: bool) -> Example:
        """A conversation: all assistant turns are learnt, or the last one is dropped for the model to write."""
        value = _as_turns(self.at(field))
        if not isinstance(value, list):
            self._missing(value, f"under {field!r}", "a list of turns")
        turns = self._turns(value, field)
        if not labelled:
            return self._example(turns[:-1] if turns[-1].role == "assistant" else turns, [])
        if turns[-1].role != "assistant":
            self._refuse("ends with a turn of the user: no answer to learn")
        first = next(i for i, turn in enumerate(turns) if turn.role == "assistant")
        return self._example(turns[:first], turns[first:])

    def _example(self, opening: Sequence[Turn], answers: Sequence[Turn]) -> Example:
        """The last answer is the response; the turns before it are its prompt."""
        before = [*opening, *answers[:-1]]
        system = before.pop(0).content if before[0].role == "system" else self.system
        *history, last = before
        plain = last.content
        if history:  # without a template, write out the roles, so that the speakers stay known
            plain = "".join(f"{turn.role.capitalize()}: {turn.content}\n\n" for turn in before) + "Assistant:"
        prompt = Prompt(user=last.content, plain=plain, system=system, history=tuple(history))
        taught = max(1, sum(turn.role == "assistant" for turn in answers))
        meta = {} if self.teacher is None else {"teacher": str(self.row.get(self.teacher))}
        texts = {key: value for key, value in self.row.items() if isinstance(value, str)}
        return Example(str(self.number), prompt, answers[-1].content if answers else None, meta, taught, texts)

    def _turns(self, value: Sequence[Any], field: str, first: str = "user") -> list[Turn]:
        """Alternating turns starting with ``first``, after a system turn if there is one."""
        turns: list[Turn] = []
        for place, turn in enumerate(value, 1):
            turns.append(self._turn(turn, f"in turn {place} under {field!r}"))
        speaking = turns[1:] if turns and turns[0].role == "system" and first == "user" else turns
        if not speaking:
            raise Empty(f"{self.file}: row {self.number} has no turns under {field!r}")
        for place, turn in enumerate(speaking):
            role = first if place % 2 == 0 else {"user": "assistant", "assistant": "user"}[first]
            if turn.role != role:
                hint = f"; a whole conversation is named by data.messages_field={field}" if first == "assistant" else ""
                self._refuse(f"has a turn of the {turn.role} under {field!r} instead of one of the {role}{hint}")
        return turns

    def _turn(self, turn: Any, where: str) -> Turn:
        if not isinstance(turn, Mapping):
            self._refuse(f"holds {_kind(turn)} {where}, not an object with role and content")
        role, content = next((pair for pair in KEYS if turn.get(pair[0]) is not None), KEYS[0])
        author, text = turn.get(role), turn.get(content)
        if author not in ROLES:
            self._refuse(f"has the role {author!r:.30} {where}; known are {', '.join(ROLES)}")
        if isinstance(text, list):  # parts, as in data for models with images
            parts = [p.get("text") for p in text if isinstance(p, Mapping) and p.get("type") == "text"]
            if len(parts) < len(text) or not all(isinstance(part, str) for part in parts):
                self._refuse(f"has a part that is not text {where}")
            text = "".join(parts)
        return Turn(ROLES[author], self._text(text, where))

    def at(self, field: str) -> Any:
        """The value under a column, or along a path of columns with dots."""
        if field in self.row:
            return self.row[field]
        value: Any = self.row
        for part in field.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def _text(self, value: Any, where: str) -> str:
        if not isinstance(value, str) or not value.strip():
            self._missing(value, where, "text")
        return value

    def _missing(self, value: Any, where: str, wanted: str) -> NoReturn:
        if _is_empty(value):
            raise Empty(f"{self.file}: row {self.number} has no text {where}")
        self._refuse(f"holds {_kind(value)} {where}, not {wanted}")

    def _refuse(self, what: str) -> NoReturn:
        raise BadInput(f"{self.file}: row {self.number} {what}")


def _as_turns(value: Any) -> Any:
    """A list of turns, including its forms in tables: JSON in a cell, or column by column."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        with contextlib.suppress(BadInput):
            return safe_read.value(value.encode("utf-8", "replace"), finite=False)
    if isinstance(value, Mapping) and value and all(isinstance(part, list) for part in value.values()):
        with contextlib.suppress(ValueError):  # lists of different lengths are not turns
            return [dict(zip(value, parts, strict=True)) for parts in zip(*value.values(), strict=True)]
    return value


def _is_empty(value: Any) -> bool:
    return value is None or value == [] or (isinstance(value, str) and not value.strip())


def _kind(value: Any) -> str:
    names = {str: "text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return "nothing" if value is None else names.get(type(value), type(value).__name__)


# Training prompts: from the micro world or from rows of any source, always as :class:`harness.types.Example`.


@dataclass(frozen=True)
class ExamplePool:
    """The examples of one source. ``description`` describes the source in words; ``facts`` are for the record."""

    examples: list[Example] = field(default_factory=list)
    description: str = ""
    facts: Mapping[str, str | int | None] = field(default_factory=dict)


def load(name: str, sources: DataSources, *, labelled: bool, limit: int | None = None) -> list[Example]:
    """The examples of :func:`read`."""
    return read(name, sources, labelled=labelled, limit=limit).examples


def read(
    name: str, sources: DataSources, *, labelled: bool, limit: int | None = None, written: bool = False
) -> ExamplePool:
    """The first ``limit`` examples of the source ``name``. Raises BadInput with file and row.

    ``labelled`` requires responses. ``written``: writes the prompts of rows in the form ``data.plain``, for a model
    without a chat template.
    """
    if name.startswith(MICRO):
        return _generated(name, limit)
    rows = source.open_rows(name, limit)
    if not rows.rows:
        raise BadInput(f"training data {name}: holds no rows")
    fields = choose(rows, sources, labelled=labelled)
    examples = list(examples_of(rows, fields, sources, labelled=labelled))
    if not examples:
        raise BadInput(f"training data {name}: every row is empty")
    skipped = len(rows.rows) - len(examples)
    examples = plain_prompts.written(examples, sources.plain) if written else examples
    opened = "".join(f", {key} {value}" for key, value in rows.facts.items() if value is not None)
    opened += f", {skipped} empty rows skipped" if skipped else ""
    facts = {"source": _portable(name), "columns": fields.in_words(), **rows.facts}
    facts |= {"skipped": skipped} if skipped else {}
    return ExamplePool(examples, f"{rows.name}{opened}, from {fields.in_words()}", facts)


def _generated(name: str, limit: int | None) -> ExamplePool:
    """The micro world's split, or its beginning."""
    from harness.micro.world import examples

    address = source.parse(name)
    address.without("config", "split", "revision")
    bound = min((n for n in (limit, address.first) if n is not None), default=None)
    return ExamplePool(examples(address.name.removeprefix(MICRO))[:bound], f"{name}, generated", {"source": name})


def _portable(name: str) -> str:
    """The name of a source without folders of this machine."""
    return Path(name).name if Path(name).is_absolute() else name


def fingerprint(examples: Sequence[Example]) -> str:
    """sha256 of the prompts and responses of the examples: part of the training specification."""
    return deque(_fingerprints(examples), maxlen=1)[0] if examples else hashlib.sha256().hexdigest()


def beginning(examples: Sequence[Example], sha256: str) -> int | None:
    """The number of leading examples with the fingerprint ``sha256``; None if there is none."""
    return next((n for n, digest in enumerate(_fingerprints(examples), 1) if digest == sha256), None)


def _fingerprints(examples: Sequence[Example]) -> Iterator[str]:
    """The fingerprint of every beginning, the shortest first."""
    digest = hashlib.sha256()
    for example in examples:
        # Add the extra facts of conversations only for them, which keeps the fingerprints of single turns.
        prompt = example.prompt
        more = [prompt.history, example.taught] if prompt.history else []
        fields = [example.id, prompt.system, prompt.user, prompt.plain, example.response, *more]
        digest.update(json.dumps(fields).encode())
        yield digest.hexdigest()


def checker(name: str):
    """The step checker of the training prompts ``name``, or None."""
    if not name.startswith(MICRO):
        return None
    from harness.micro.world import check_step

    return check_step


def same_step(name: str):
    """The rule that decides whether two steps of the training prompts ``name`` mean the same, or None."""
    if not name.startswith(MICRO):
        return None
    from harness.micro.world import same_step

    return same_step
