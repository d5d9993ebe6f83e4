"""Reads stored completions for grading. Every row is graded, or the file is refused with the line of the faulty row."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import BadInput
from harness.evaluation.sample_rows import (
    ALPACA,
    EVALPLUS,
    FASTCHAT,
    OWN,
    RAW,
    Format,
    SampleRow,
    format_of,
    read_rows,
    shown,
    turns_apart,
)
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

    :mod:`harness.evaluation.sample_rows` describes the formats. Raises BadInput with file and line for a row that is
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
    asked: defaultdict[str, list[Problem]] = defaultdict(list)
    for problem in task.items:
        asked[problem.prompt.user].append(problem)
    seen: Counter[str] = Counter()
    found = []
    for row in rows:
        instruction = row.fields["instruction"]
        if not isinstance(instruction, str) or instruction not in asked:
            hint = _other_world(task, lambda problem, sought=instruction: problem.prompt.user == sought)
            raise BadInput(f"{row.place}: {task.title} has no instruction {shown(instruction)}{hint}")
        same = asked[instruction]
        found.append(same[seen[instruction] % len(same)])
        seen[instruction] += 1
    return found, []


def _by_id(task: Task, form: Format, rows: Sequence[SampleRow]) -> tuple[list[Problem], list[str]]:
    """The problem of each row, by an id that the task knows, else by ``idx``; and warnings where the two disagree.

    Raises BadInput if neither can be trusted: some ids contradict their idx, and others are unknown.
    """
    by_id = {problem.id: problem for problem in task.items}
    by_idx = {str(position): problem for position, problem in enumerate(task.items)} if form is RAW else {}
    found, foreign, contradicted, misquoted = [], [], [], []
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
        found.append(named or placed)
    if foreign and contradicted:
        raise BadInput(
            f"{contradicted[0].place}: id and idx name two problems of {task.title}, and the id at "
            f"{foreign[0].place} names none; leave out the field that is wrong"
        )
    return found, [
        f"{task.title}: {len(those)} of {len(rows)} rows {fault} (first: {those[0].place})"
        for those, fault in (
            (foreign, "have an id of no problem; their idx was taken"),
            (contradicted, "have an idx that contradicts their id; the id was taken"),
            (misquoted, "quote another question than the one at their idx; is it the right task?"),
        )
        if those
    ]


def _quotes_another(row: SampleRow, problem: Problem) -> bool:
    question = row.fields.get("question", row.fields.get("problem"))
    return isinstance(question, str) and question.split() != problem.prompt.user.split()


def _unknown(task: Task, row: SampleRow, ids: Sequence[str], idx: object) -> BadInput:
    if idx is not None:
        return BadInput(f"{row.place}: idx {shown(idx)} is no position from 0 to {len(task.items) - 1} in {task.title}")
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

    def next(self, problem: Problem, given: int | None, place: str) -> int:
        if given is None:
            while (problem.id, self._free[problem.id]) in self._places:
                self._free[problem.id] += 1
            given = self._free[problem.id]
        elif earlier := self._places.get((problem.id, given)):
            raise BadInput(f"{place}: repeats sample {given} of problem {problem.id!r}, which is at {earlier}")
        self._places[problem.id, given] = place
        return given


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
    found = []
    if len(per_problem) < len(task.items):
        found.append(f"{task.title}: graded {len(per_problem)} of {len(task.items)} problems")
    fewest, most = min(per_problem.values()), max(per_problem.values())
    if fewest < most:
        found.append(f"{task.title}: {fewest} to {most} samples per problem; each problem counts the same")
    return found
