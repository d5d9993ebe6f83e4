"""Recorded answers of ``harness run``, found without planning the run again.

Planning imports tokenizers, which takes seconds, even if nothing is left to do. After a run this
module keeps the command, everything that its plan read, and the identities of its records. The same command
returns these records at once as long as none of these changed: arguments, environment, working folder, the harness,
the installed packages, and size and time of every file and folder that the plan opened. Otherwise it is planned again.

A command with only methods, tasks, seeds, recipe and results folder is also kept cell by cell, so that
another selection of the same cells is answered from them. Other options may concern only one of several methods.

Only commands on shipped code and models of this machine are kept. Commands with user code, or with a model
of the hub whose revision may move, are planned every time.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import durable
from harness.durable import digest

if TYPE_CHECKING:
    from harness.records.record import Record
    from harness.request import Plan
    from harness.training.job import TrainingRun

FORM = 1  # raise this if the form of the kept answers changes
READS = ("HARNESS_", "HF_", "TRANSFORMERS_", "CUDA_", "XDG_", "HOME", "PYTHON")  # prefixes of the variables of a plan
ASIDE = ("command", "exit_code", "json", "debug", "again", "dry_run", "resume", "track")  # see :func:`question_of`
NAMELESS = getattr(os, "O_TMPFILE", os.O_CREAT | os.O_EXCL)  # a temporary file of a folder
Mark = tuple[int, int] | None  # size and time of a file; None where there is none


def question_of(args: argparse.Namespace) -> Question | None:
    """The question of a ``harness run``; None for one that must be planned: run again, resumed, tried, or launched."""
    if any(getattr(args, name, None) for name in ("again", "dry_run", "resume", "track")) or "WORLD_SIZE" in os.environ:
        return None
    with contextlib.suppress(OSError):  # the working folder may be gone
        return Question(args)
    return None


def notice(run_id: str) -> str:
    """The lines that a run prints about a record it returns."""
    return f"{run_id}: already recorded, returned unchanged (--again runs it again)"


class Question:
    """A command, and the place of its kept answer."""

    def __init__(self, args: argparse.Namespace):
        arguments = {name: value for name, value in sorted(vars(args).items()) if name not in ASIDE}
        variables = {name: value for name, value in sorted(os.environ.items()) if name.startswith(READS)}
        self.results = Path(args.results)
        where = {"folder": os.getcwd(), "results": os.path.realpath(self.results), "python": sys.version, "form": FORM}
        around = [variables, where, _code()]
        self.path = self._place(arguments, around)
        self.cells = {cell: self._place(arguments | of_cell, around) for cell, of_cell in _cells(arguments)}
        self._read: set[str] = set()

    def _place(self, arguments: dict[str, Any], around: list[Any]) -> Path:
        """Where the answer to these arguments is kept."""
        key = digest([{name: str(value) for name, value in arguments.items()}, *around])
        return self.results / "work" / "answered" / f"{key[:24]}.json"

    def answer(self) -> tuple[list[str], list[Record]] | None:
        """The messages and records of the run; None if it must be planned.

        Raises BadInput for a damaged record, as a planned run does.
        """
        answers = [_kept(self.path)]
        if answers[0] is None:
            answers = [_kept(path) for path in self.cells.values()]
        if not answers or not all(answers):
            return None
        identities = [identity for answer in answers if answer for identity in answer[0]]
        messages = [line for answer in answers if answer for line in answer[1]]
        from harness.records.store import Store

        store = Store(self.results)
        records = [store.find(identity) for identity in identities]
        if any(record is None for record in records):
            return None
        return messages, [record | {"reused": True} for record in records if record is not None]

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Notes every file that is opened and every folder that is listed in here."""
        with _listening(self._read.add):
            yield

    def keep(self, plan: Plan, messages: Sequence[str], records: Sequence[Record]) -> None:
        """Keeps the answer, unless it depends on something that no local file shows."""
        if not _shipped(plan):
            return
        passing = _passing(self.results)
        read = {path for path in self._read if not passing(path) and os.path.exists(path)}
        # The hash of a model may be cached in this process, without any of its files opened.
        for folder in (m.path for m in (plan.student, plan.teacher) if m is not None):
            read |= {str(folder), *(str(file) for file in folder.iterdir())}
        # The contents of a folder count too: the plan might take a file that is added later.
        read |= set(_folders(os.environ.get("HARNESS_DATA")))
        marks = {path: _mark(path) for path in sorted(read)}
        identities = [record["identity"] for record in records]
        _keep(self.path, marks, identities, messages)
        # Keep it cell by cell, if the plan made these cells in this order. A warning may concern only one of them, so
        # there must be none.
        made = [(t.word, task.title.partition("@")[0], t.seed) for t in plan.trainings for task in plan.tasks]
        cells = [(method, task.partition("@")[0], seed) for method, task, seed in self.cells]
        if made == cells and not any(line.startswith("warning: ") for line in messages):
            for path, identity in zip(self.cells.values(), identities, strict=True):
                _keep(path, marks, [identity], ())


def _kept(path: Path) -> tuple[list[str], list[str]] | None:
    """Identities and lines of a kept answer; None if there is none, or if one of its files changed."""
    try:
        kept = json.loads(path.read_text("utf-8"))
        if any(_mark(read) != (mark and tuple(mark)) for read, mark in kept["read"].items()):
            return None
        return list(kept["identities"]), list(kept["said"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _keep(path: Path, marks: dict[str, Mark], identities: Sequence[str], messages: Sequence[str]) -> None:
    content = {"read": marks, "identities": list(identities), "said": list(messages)}
    with contextlib.suppress(OSError):  # on a full disk the next run just plans again
        path.parent.mkdir(parents=True, exist_ok=True)
        durable.write(path, json.dumps(content).encode())


def _cells(arguments: dict[str, Any]) -> Iterator[tuple[tuple[str, str, int], dict[str, Any]]]:
    """Every (method, task, seed) of a command without other options, in the order of its records, as arguments."""
    choice = ("method", "task", "seed")
    if any(value for name, value in arguments.items() if name not in (*choice, "recipe", "results")):
        return
    for method in arguments["method"]:
        for seed in arguments["seed"] or [0]:
            for task in arguments["task"]:
                yield (method, task, seed), {"method": [method], "task": [task], "seed": [seed]}


def _shipped(plan: Plan) -> bool:
    """Whether all code of the plan ships with the harness, and all of its models are files of this machine."""
    from harness import registry, user_code
    from harness.models import files
    from harness.small import world as small

    signal = registry.find(registry.SIGNALS, plan.recipe.training.signal)
    code = [user_code.identity(type(task)) for task in plan.tasks] + [user_code.identity(signal)]
    stages = [stage for training in plan.trainings for stage in (training, training.first) if stage is not None]
    origins = [stage.origin for stage in stages]
    chosen = [plan.recipe.models.student, plan.recipe.models.teacher, *(m.model for m in plan.recipe.teachers.values())]
    here = all(name.startswith((files.MICRO, small.PREFIX)) or Path(name).is_dir() for name in chosen)
    judged = any(task.grader_identity().get("judge") for task in plan.tasks)
    return here and not judged and set(code + origins) == {user_code.OURS}


def _passing(results: Path) -> Callable[[str], bool]:
    """Whether a file is irrelevant to a plan: files of the system, of Python and its packages, or left behind by runs.

    A recipe may be anywhere else, also below Python's prefix (``/usr``) or in the results folder. A first run opens
    thousands of files of packages, so paths are compared as strings.
    """
    own = os.path.realpath(results)
    python = (sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib"))
    left = (os.path.join(own, name) for name in ("work", "records", "completions", "curves", ".lock"))
    folders = tuple(f"{folder}{os.sep}" for folder in ("/proc", "/sys", "/dev", *python, *left))

    def passing(path: str) -> bool:
        whole = os.path.abspath(path)
        return whole == own or f"{whole}{os.sep}".startswith(folders)

    return passing


def _code() -> list[Any]:
    """Marks of the harness, file by file, and of the folders that packages are installed into."""
    marks: list[Any] = [_mark(sysconfig.get_path(kind)) for kind in ("purelib", "platlib")]
    for package in ("harness", "harness.methods", "harness.tasks"):
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for inside, _, names in os.walk(folder):
                if not inside.endswith("__pycache__"):
                    marks += [(os.path.join(inside, name), _mark(os.path.join(inside, name))) for name in sorted(names)]
    return marks


def _folders(root: str | None) -> Iterator[str]:
    """The folder of benchmark files, and the folders in it."""
    if root is not None:
        for inside, folders, _ in os.walk(root):
            yield inside
            if inside.count(os.sep) - root.rstrip(os.sep).count(os.sep) >= 2:
                folders.clear()


def _mark(path: str) -> Mark:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


_listeners: list[Callable[[str], None]] = []


@contextlib.contextmanager
def _listening(listener: Callable[[str], None]) -> Iterator[None]:
    if not _hooked:  # hooks cannot be removed, so there is a single one, which does nothing without listeners
        sys.addaudithook(_hook)
        _hooked.append(True)
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and (arguments[2] & os.O_TRUNC or arguments[2] & NAMELESS == NAMELESS):
        return  # opened for writing only, such as the temporary file that tests a folder: nothing was read
    if _listeners and event in ("open", "os.listdir", "os.scandir") and isinstance(arguments[0], str | os.PathLike):
        path = os.path.abspath(os.fspath(arguments[0]))
        for listener in _listeners:
            if isinstance(path, str):
                listener(path)


def reuse(
    plan: Plan, training: TrainingRun, existing: dict[str, Any], announce: Callable[[str], None]
) -> dict[str, Any]:
    """The recorded result. First finishes the work of a run that was killed right after recording."""
    from harness import model_card
    from harness.records import work_folder

    work_folder.forget_run(plan.work, existing["run_id"])
    model_card.catch_up(work_folder.student_folder(plan.work, training.training_id), plan.store, existing)
    announce(notice(existing["run_id"]))
    return existing | {"reused": True}


_hooked: list[bool] = []
