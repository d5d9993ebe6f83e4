"""Runs a recorded row again: how far the scores differ, and whether rounding or a seed explains it.

Another CPU rounds differently from the first step on, even with the same specification. Training amplifies the
difference, most of all if the student trains on its own samples: the second run is then like one with another seed
(measured in results/rounding). So the bound is the difference that two seeds of the row would have, if several
seeds are recorded.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import stdtrit

from harness import metrics
from harness.errors import BadInput
from harness.evaluation import benchmarks, evaluate, measurement
from harness.metrics import PERCENT, Scale
from harness.records import curves
from harness.records.record import Record, fingerprint, provenance
from harness.records.store import Store
from harness.rerun import command
from harness.rerun.command import Replacements
from harness.stats import intervals
from harness.training.job import Progress
from harness.types import Completion

LEVEL = 0.95
ENOUGH_SEEDS = 3  # of the row itself; with fewer, the variance comes from all rows of the task
ROW = {"problem_id": str, "sample": int, "text": str, "tokens": int, "finish": str, "score": int | float}
MACHINE = ("cpu", "kernel", "threads", "device")  # parts of the provenance that determine rounding, besides torch

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Bound:
    """The largest difference of two scores that is explained, and the explanation."""

    value: float
    why: str


@dataclass(frozen=True)
class Report:
    """A record (``then``) and its second run (``now``). Scores and differences are on ``scale``.

    ``gained`` and ``lost`` count the completions whose score rose or fell, ``changed_texts`` those with another text,
    out of ``compared``. ``curve`` is the largest absolute difference of the training loss over the points that both
    curves have, None if there are none.
    """

    run_id: str
    then: dict[str, Any]
    now: dict[str, Any]
    compared: int
    changed_texts: int
    gained: int
    lost: int
    curve: float | None
    bound: Bound
    machine_then: dict[str, Any]
    machine_now: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    scale: Scale = PERCENT

    @property
    def difference(self) -> float:
        return self.now["score"] - self.then["score"]

    @property
    def equal(self) -> bool:
        """Whether every verdict equals the recorded one."""
        return self.difference == 0 and not self.gained and not self.lost

    @property
    def holds(self) -> bool:
        """Whether the record is confirmed: equal, or different by no more than the bound."""
        return self.equal or abs(self.difference) <= self.bound.value + 1e-12


def run_again(
    record: Record,
    store: Store,
    replacements: Replacements,
    work: Path | None,
    progress: Progress,
    announce: Callable[[str], None],
) -> Report:
    """Runs a record again in the folder ``work``, or in a temporary one; the record is not changed.

    Raises BadInput if this version, these files or this machine cannot repeat the training, and RunFailed if the run
    fails.
    """
    rows = _rows_of(record, store)
    with _folder(work, store) as scratch:
        repeat = command.find(record, scratch, replacements)
        if not repeat.same_training:
            raise BadInput(f"{record['run_id']} cannot be run again exactly: {repeat.differs}")
        from harness.estimate import memory_check
        from harness.run import run

        memory_check.check(repeat.plan, announce)
        (made,) = run(repeat.plan, progress, announce)
        second = Store(scratch)
        again = second.completions(made)
        curve = curves.read(store.root, record["training_id"])
        off = _curve_difference(curve, curves.read(scratch, made["training_id"]))
    notes = [f"measured under another protocol now: {repeat.differs}"] if repeat.differs else []
    return _report(record, made, rows, again, off, _bound(record, store, rows, again), notes)


def grade_again(record: Record, store: Store, replacements: Replacements, work: Path | None) -> Report:
    """Grades the stored completions of a record again. Equal texts get equal verdicts, so the bound is 0.

    Raises BadInput if the task or its judge cannot be opened, or if the completions are not the task's.
    """
    rows = _rows_of(record, store)
    protocol = record["protocol"]
    command.check_form(record, replacements, training=False)
    name = (protocol.get("name") or "").removesuffix(measurement.CHANGED) or None
    judge = replacements.judge or command.judge_word(record)
    with _folder(work, store) as scratch:
        word = replacements.task or command.task_word(record)
        task = benchmarks.open_task(word, record["world"], judge, scratch / "work" / "judgements", name)
        known = {problem.id for problem in task.items}
        if strangers := [row["problem_id"] for row in rows if row["problem_id"] not in known]:
            raise BadInput(f"{record['run_id']}: {task.title} has no problem {strangers[0]!r}; its data has changed")
        completions = [Completion.of(row) for row in rows]
        graded = evaluate.rows(completions, task.grade_all(completions))
        score = evaluate.score(task, graded)
    now = {"score": score.value, "counts": score.counts, "provenance": provenance("cpu")}
    notes = []
    if (version := protocol.get("version")) != task.version:
        notes.append(f"{task.title} is version {task.version} now and was {version}: its grading has changed since")
    elif json.loads(json.dumps(task.grader_identity())) != protocol.get("grader"):
        notes.append("the grader or its judge is not the recorded one")
    return _report(record, now, rows, graded, None, Bound(0.0, "grading the same texts gives the same verdicts"), notes)


@contextlib.contextmanager
def _folder(work: Path | None, store: Store) -> Iterator[Path]:
    """The folder of the second run: ``work``, which is kept, or a temporary one.

    Raises BadInput for the results folder itself.
    """
    if work is None:
        with tempfile.TemporaryDirectory(prefix="harness-verify-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)
        return
    if os.path.realpath(work) == os.path.realpath(store.root):
        raise BadInput(f"--work {work} is the results folder itself; name another, so that no record is touched")
    yield work


def _rows_of(record: Record, store: Store) -> Rows:
    """The stored completions. Raises BadInput if they are missing, changed, or no graded completions."""
    rows = store.completions(record)
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or any(not isinstance(row.get(key), kind) for key, kind in ROW.items()):
            raise BadInput(f"{record['completions']['file']}:{number}: no graded completion")
    return rows


def _report(
    record: Record,
    made: Mapping[str, Any],
    rows: Rows,
    again: Rows,
    curve: float | None,
    bound: Bound,
    notes: list[str],
) -> Report:
    """Compares both runs completion by completion."""
    theirs, ours = _by_place(rows), _by_place(again)
    shared = theirs.keys() & ours.keys()
    if len(shared) < max(len(theirs), len(ours)):
        notes = [*notes, f"{len(theirs.keys() ^ ours.keys())} completions are in one run only"]
    then, now = _machine(record["provenance"]), _machine(made["provenance"])
    report = Report(
        run_id=record["run_id"],
        then={"score": record["score"], "counts": record["counts"]},
        now={"score": made["score"], "counts": made["counts"]},
        compared=len(shared),
        changed_texts=sum(theirs[key]["text"] != ours[key]["text"] for key in shared),
        gained=sum(ours[key]["score"] > theirs[key]["score"] for key in shared),
        lost=sum(ours[key]["score"] < theirs[key]["score"] for key in shared),
        curve=curve,
        bound=bound,
        machine_then=then,
        machine_now=now,
        notes=notes,
        scale=metrics.scale_of(record),
    )
    if not report.equal and bound.value and then == now and then["kernel"]:
        report.notes.append("both runs had the same kernels and the same torch: rounding does not explain a difference")
    return report


def _by_place(rows: Rows) -> dict[tuple[str, int], Mapping[str, Any]]:
    return {(row["problem_id"], row["sample"]): row for row in rows}


def _machine(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that determine rounding; None for those missing in an older record."""
    facts = {key: provenance.get(key) for key in MACHINE}
    return facts | {"torch": provenance.get("versions", {}).get("torch"), "commit": provenance.get("commit")}


def _curve_difference(then: Iterable[Mapping[str, Any]], now: Iterable[Mapping[str, Any]]) -> float | None:
    """The largest absolute difference of the loss over the steps that both curves have."""
    a, b = ({p["step"]: p["loss"] for p in points if p.get("loss") is not None} for points in (then, now))
    return max((abs(a[step] - b[step]) for step in a.keys() & b.keys()), default=None)


def _bound(record: Record, store: Store, rows: Rows, again: Rows) -> Bound:
    """The difference that two runs of a row may have, from the best evidence available.

    Two draws of a score with standard deviation s differ by at most t * s * sqrt(2), 19 times out of 20. The seeds of
    the row estimate s; if there are too few, the seeds of all trained rows of the task do. Without seeds the changed
    verdicts give the bound, with gains and losses equally likely, as in McNemar's test.
    """
    rows_of: dict[str, dict[int, float]] = {}
    for other in store.all()[0]:
        if other["task"] == record["task"] and other["protocol"]["hash"] == record["protocol"]["hash"]:
            row = fingerprint({**other["spec"], "seed": None})
            rows_of.setdefault(row, {})[other["seed"]] = other["score"]
    scale = metrics.scale_of(record)
    of_this_row = list(rows_of.get(fingerprint({**record["spec"], "seed": None}), {}).values())
    if len(of_this_row) >= ENOUGH_SEEDS:
        return _of_seeds([of_this_row], f"this row's {len(of_this_row)} seeds", scale)
    many = [list(scores.values()) for scores in rows_of.values() if len(scores) > 1]
    if sum(len(scores) - 1 for scores in many) >= ENOUGH_SEEDS:
        return _of_seeds(many, f"the seeds of {len(many)} rows of {record['task']}", scale)
    theirs, ours = _by_place(rows), _by_place(again)
    changes = [ours[key]["score"] - theirs[key]["score"] for key in theirs.keys() & ours.keys()]
    spread = math.sqrt(sum(change * change for change in changes))
    value = intervals.normal_quantile(LEVEL) * spread / max(len(changes), 1)
    return Bound(value, "too few seeds are recorded; gains and losses of single verdicts equally likely, 95 %")


def _of_seeds(groups: Sequence[Sequence[float]], whose: str, scale: Scale) -> Bound:
    """The bound from the scores of several seeds, one group per row."""
    squares = sum(float(np.var(scores, ddof=1)) * (len(scores) - 1) for scores in groups)
    freedom = sum(len(scores) - 1 for scores in groups)
    deviation = math.sqrt(squares / freedom)
    value = float(stdtrit(freedom, (1 + LEVEL) / 2)) * math.sqrt(2) * deviation
    return Bound(value, f"the difference of two runs, 95 %, from {whose} (SD {scale.text(deviation)} {scale.points})")


def in_words(report: Report) -> str:
    """The report for people; the finding is the last line."""
    then, now, scale = report.then, report.now, report.scale
    moved = f"{scale.signed(report.difference)} {scale.points}"
    lines = [
        report.run_id,
        f"score        {_score(then, scale)} then, {_score(now, scale)} now: {moved}",
        f"completions  {report.changed_texts} of {report.compared} have another text",
        f"verdicts     {report.gained + report.lost} of {report.compared} differ: "
        f"{report.gained} better now, {report.lost} worse",
    ]
    if report.curve is not None:
        lines.append(f"training     the loss differs by at most {report.curve:.2g}")
    lines += [
        f"then         {_machine_words(report.machine_then)}",
        f"now          {_machine_words(report.machine_now)}",
    ]
    lines.append(f"bound        {scale.text(report.bound.value)} {scale.points}: {report.bound.why}")
    lines += [f"note         {note}" for note in report.notes]
    if report.equal:
        finding = "equal: every verdict is the recorded one"
    elif report.holds:
        finding = "within the bound: rounding, or another seed, explains the difference"
    else:
        finding = "NOT confirmed: the difference is larger than the bound"
    return "\n".join([*lines, finding])


def as_json(report: Report) -> dict[str, Any]:
    """The report for programs."""
    own = dataclasses.asdict(report)
    return own | {
        "scale": report.scale.card(),
        "difference": report.difference,
        "equal": report.equal,
        "holds": report.holds,
    }


def _score(side: Mapping[str, Any], scale: Scale) -> str:
    counts = side["counts"]
    return f"{scale.text(side['score'])} ({counts['correct']:g} of {counts['total']})"


def _machine_words(machine: Mapping[str, Any]) -> str:
    kernel = f"kernels {machine['kernel']}" if machine["kernel"] else ""
    threads = f"{machine['threads']} thread{'' if machine['threads'] == 1 else 's'}" if machine["threads"] else ""
    commit = f"commit {machine['commit'][:7]}" if machine["commit"] else "commit unknown"
    known = (machine["cpu"], kernel, threads, machine["device"], f"torch {machine['torch']}", commit)
    return ", ".join(filter(None, known))
