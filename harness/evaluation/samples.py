"""Reads stored completions for grading. Every row is graded, or the file is refused with the line of the faulty row."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import safe_read
from harness.errors import BadInput
from harness.task import Task
from harness.types import Completion, Problem


@dataclass(frozen=True)
class Samples:
    """The completions of a file, in its order. ``programs``: the ``solution`` of each row that has one."""

    completions: list[Completion]
    programs: list[str | None]
    warnings: list[str]


def read(task: Task, path: Path) -> Samples:
    """The completions in ``path``, with warnings for readers of their score.

    The parser below has the table of formats. Raises BadInput with file and line for a row that is
    malformed, of another format than the first, of an unknown problem, or that repeats a sample number.
    """
    rows = turns_apart(read_rows(path)) if task.samples_as == FASTCHAT else read_rows(path)
    form = format_of(rows, task.samples_as)
    if not task.items:
        raise BadInput(f"{task.title} has no problems: {task.data.source} is empty")
    problems, warnings = _by_instruction(task, rows) if form is ALPACA else _by_id(task, form, rows)
    pairs = list(zip(rows, problems, strict=True))
    numbers = _Numbers()
    completions = [
        _completion(form, row, problem, text, numbers) for row, problem in pairs for text in _texts(form, row)
    ]
    programs = [row.fields.get("solution") if form is EVALPLUS else None for row in rows]
    programs += [None] * (len(completions) - len(programs))  # rows with several texts have another format
    return Samples(completions, programs, [*warnings, *_coverage(task, completions)])


def _by_instruction(task: Task, rows: Sequence[SampleRow]) -> tuple[list[Problem], list[str]]:
    """The problem of each row, by its instruction. Problems with equal instructions are assigned in turn."""
    by_instruction: defaultdict[str, list[Problem]] = defaultdict(list)
    for problem in task.items:
        by_instruction[problem.prompt.user].append(problem)
    assigned: Counter[str] = Counter()
    problems = []
    for row in rows:
        instruction = row.fields["instruction"]
        if not isinstance(instruction, str) or instruction not in by_instruction:
            hint = _other_world(task, lambda problem, sought=instruction: problem.prompt.user == sought)
            raise BadInput(f"{row.place}: {task.title} has no instruction {shown(instruction)}{hint}")
        same = by_instruction[instruction]
        problems.append(same[assigned[instruction] % len(same)])
        assigned[instruction] += 1
    return problems, []


def _by_id(task: Task, form: Format, rows: Sequence[SampleRow]) -> tuple[list[Problem], list[str]]:
    """The problem of each row, by an id that the task knows, else by ``idx``; and warnings where the two disagree.

    Raises BadInput if neither can be trusted: some ids contradict their idx, and others are unknown.
    """
    by_id = {problem.id: problem for problem in task.items}
    by_idx = {str(position): problem for position, problem in enumerate(task.items)} if form is RAW else {}
    problems, foreign, contradicted, misquoted = [], [], [], []
    for row in rows:
        ids = [str(row.fields[key]) for key in form.keys if key in row.fields and key != "idx"]
        named = next((by_id[name] for name in ids if name in by_id), None)
        idx = row.fields.get("idx") if by_idx else None
        placed = by_idx.get(str(idx))
        if named is None and placed is None:
            raise _unknown(task, row, ids, idx)
        if named is None and ids:
            foreign.append(row)
        if named is None and _quotes_another(row, placed):
            misquoted.append(row)
        if named is not None and idx is not None and placed is not named:
            contradicted.append(row)
        problems.append(named or placed)
    if foreign and contradicted:
        raise BadInput(
            f"{contradicted[0].place}: id and idx name two problems of {task.title}, and the id at "
            f"{foreign[0].place} names none; remove the wrong field"
        )
    return problems, [
        f"{task.title}: {len(those)} of {len(rows)} rows {fault} (first: {those[0].place})"
        for those, fault in (
            (foreign, "have an unknown id; their idx was used"),
            (contradicted, "have an idx that contradicts their id; the id was used"),
            (misquoted, "quote another question than the one at their idx; is it the right task?"),
        )
        if those
    ]


def _quotes_another(row: SampleRow, problem: Problem) -> bool:
    question = row.fields.get("question", row.fields.get("problem"))
    return isinstance(question, str) and question.split() != problem.prompt.user.split()


def _unknown(task: Task, row: SampleRow, ids: Sequence[str], idx: object) -> BadInput:
    if idx is not None:
        return BadInput(
            f"{row.place}: idx {shown(idx)} is not a position from 0 to {len(task.items) - 1} in {task.title}"
        )
    some = ", ".join(repr(problem.id) for problem in task.items[:3])
    hint = _other_world(task, lambda problem: problem.id == ids[0])
    return BadInput(f"{row.place}: {task.title} has no problem {shown(ids[0])} (it has {some}, …){hint}")


def _other_world(task: Task, is_meant: Callable[[Problem], bool]) -> str:
    """Advice to name the other world, if the row may belong to it."""
    if task.data.world != "real":
        return f"; if these are completions of the real benchmark, pass --task {task.name}@real"
    from harness.micro import world

    if task.name in world.TASKS and any(map(is_meant, type(task)(world.dataset(task.name)).items)):
        return f"; these look like completions of {task.name}@micro: pass --task {task.name}@micro"
    return ""


def _texts(form: Format, row: SampleRow) -> list[str]:
    """The texts of a row: one, or all of a list in raw outputs."""
    field = next(text for text in form.texts if text in row.fields)
    value = row.fields[field]
    texts = value if form is RAW and isinstance(value, list) else [value]
    if not texts:
        raise BadInput(f"{row.place}: {field!r} is an empty list")
    for text in texts:
        if not isinstance(text, str):
            raise BadInput(f"{row.place}: {field!r} holds {shown(text)}, not a text")
    return texts


class _Numbers:
    """The sample numbers of a file: as its rows state them, each once, else the next free number."""

    def __init__(self):
        self._places: dict[tuple[str, int], str] = {}
        self._free: Counter[str] = Counter()

    def next(self, problem: Problem, number: int | None, place: str) -> int:
        if number is None:
            while (problem.id, self._free[problem.id]) in self._places:
                self._free[problem.id] += 1
            number = self._free[problem.id]
        elif earlier := self._places.get((problem.id, number)):
            raise BadInput(f"{place}: repeats sample {number} of problem {problem.id!r}, which is at {earlier}")
        self._places[problem.id, number] = place
        return number


def _completion(form: Format, row: SampleRow, problem: Problem, text: str, numbers: _Numbers) -> Completion:
    if form is not OWN:
        return Completion(problem.id, numbers.next(problem, None, row.place), text, tokens=0, finish="stop")
    sample = numbers.next(problem, _count(row, "sample"), row.place)
    finish = row.fields.get("finish", "stop")
    if finish not in ("stop", "length"):
        raise BadInput(f"{row.place}: 'finish' is {shown(finish)}, neither 'stop' nor 'length'")
    return Completion(problem.id, sample, text, _count(row, "tokens") or 0, finish)


def _count(row: SampleRow, field: str) -> int | None:
    """The whole number under ``field``, None if missing."""
    value = row.fields.get(field)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise BadInput(f"{row.place}: {field!r} is {shown(value)}, not a whole number from 0")
    return value


def _coverage(task: Task, completions: Sequence[Completion]) -> list[str]:
    """Warnings about problems without completions or with unequal numbers of them."""
    per_problem = Counter(completion.problem_id for completion in completions)
    warnings = []
    if len(per_problem) < len(task.items):
        warnings.append(f"{task.title}: graded {len(per_problem)} of {len(task.items)} problems")
    fewest, most = min(per_problem.values()), max(per_problem.values())
    if fewest < most:
        warnings.append(f"{task.title}: {fewest} to {most} samples per problem; each problem counts the same")
    return warnings


# Parses a file of completions into rows, in one of the known formats.
#
# =====================  ==============================  ===============================================
# format                 a row names its problem by      and holds the text under
# =====================  ==============================  ===============================================
# own completions        problem_id                      text (with sample, tokens, finish where known)
# evalplus samples       task_id                         solution or completion
# alpaca_eval outputs    instruction                     output
# FastChat's answers     question_id                     choices, of which each has its turns
# raw outputs            problem_id, unique_id, id, idx  completion, output, code or generation
# =====================  ==============================  ===============================================
#
# Fields are listed in order of preference. ``idx`` is the position in the dataset file, from 0. A list under a text
# field of raw outputs holds several samples (Qwen2.5-Math's ``code``); turn n of FastChat's question q answers the
# problem ``q/n``. A file is JSON lines or one JSON list, gzipped or not; all of its rows have one format.


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
    apart = []
    for row in rows:
        question, choices = row.fields.get("question_id"), row.fields.get("choices")
        if question is None or choices is None:
            apart.append(row)
            continue
        for i, choice in enumerate(choices if isinstance(choices, list) else [None]):
            turns = choice.get("turns") if isinstance(choice, dict) else None
            if not isinstance(turns, list) or not turns:
                raise BadInput(f"{row.place}: 'choices' must be a list of objects with a list under 'turns'")
            sampled = choice.get("index", i)
            apart += [
                SampleRow(row.place, {"problem_id": f"{question}/{n}", "sample": sampled, "text": text})
                for n, text in enumerate(turns, 1)
            ]
    return apart


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
            raise BadInput(
                f"{row.place}: has the format {form.name}, but {rows[0].place} has {first.name}; grade them separately"
            )
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
    except (ValueError, RecursionError) as error:  # such as a number with thousands of digits, or a thousand brackets
        raise BadInput(f"{path}:{line}: is not readable JSON ({error})") from None
