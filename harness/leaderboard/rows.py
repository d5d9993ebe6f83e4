"""Turns records into the sections of the leaderboard. Reads no files, and never mixes two protocols.

A section holds the scores measured under one protocol, a row the training seeds of one method under one training
recipe. Records that differ in anything else form separate rows, whose labels state the difference.
"""

from __future__ import annotations

import dataclasses
import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from harness.errors import BadInput, unknown
from harness.leaderboard import COMPUTE, equal_compute, footnotes, labels
from harness.leaderboard import inference as inference
from harness.leaderboard.equal_compute import EVERYTHING, View, split
from harness.leaderboard.inference import LEVEL, Completions, Distance, Group
from harness.leaderboard.text_tables import RECONSTRUCTED, TIED
from harness.metrics import Scale
from harness.records.record import Record, note_of
from harness.stats import intervals
from harness.stats.intervals import SeedVariance
from harness.training import report


@dataclass(frozen=True)
class LeaderboardRow:
    """One method under one recipe and protocol. Costs are means over the seeds, of training alone."""

    task: str
    protocol: str
    metric: str
    scale: Scale  # of the metric: range, unit, direction
    kind: str
    method: str  # with its variant: vcrd@shuffled
    details: str  # what distinguishes it from other rows: "beta=0.3, training.steps=100"
    role: str  # competitor, control, or reference: a model that was not trained
    reference: bool  # whether its role is reference
    reconstruction: bool
    note: str
    student: str
    teacher: str | None
    settings: Mapping[str, Any]
    score: float
    low: float
    high: float
    interval_method: str
    seeds: tuple[int, ...]
    correct: float
    total: int
    errors: int
    truncated: int
    teacher_tokens: float
    generated_tokens: float
    student_tokens: float
    seconds: float
    peak_memory_bytes: float
    steps: float
    flops: float | None  # of training, median over the seeds; None where a model's parameters are not known
    run_ids: tuple[str, ...]
    convention: Mapping[str, Any]  # the convention card: what two rows must share for their numbers to be comparable
    training: str  # hash of models and recipe without the seed: the same on all tasks of a row
    baseline: str | None = None  # the method that the next field is a difference from
    over_baseline: float | None = None
    over_baseline_p: float | None = None  # Holm-adjusted within the section; from 0.05 on it is noise
    recovery: float | None = None  # share of the gap between the untrained student and the teacher
    recovery_p: float | None = None  # of the difference from the untrained student
    rank: int | None = None  # 1 is best; references are not ranked
    p_best: float | None = None  # against the best row, Holm-adjusted within the section

    @property
    def key(self) -> tuple[str, ...]:
        """Identifies a method under one recipe: equal for its rows on different tasks."""
        return self.method, self.student, self.teacher or "", self.training

    @property
    def label(self) -> str:
        return labels.joined(self.method, self.details)

    @property
    def tied(self) -> bool:
        """Not distinguishable from the best."""
        return self.p_best is not None and self.p_best >= LEVEL


@dataclass(frozen=True)
class Section:
    """All rows of one task under one protocol: methods best first, then the references."""

    task: str
    protocol: str
    differs: str  # how the protocol differs from the task's others; "" if it is the only one
    view: str  # which rows were chosen: "equal steps: 400"; "" for all
    metric: str
    scale: Scale  # of the metric: range, unit, direction
    problems: int
    rows: list[LeaderboardRow]
    notes: list[str]
    aside: list[str]  # the notes on rows left out, with the reason
    firsts: Mapping[tuple[str, ...], Record]  # one record of each row, by the row's key

    @property
    def metric_axis(self) -> str:
        """The metric with its unit, for the axis of a figure."""
        return ", ".join(filter(None, (self.metric, self.scale.unit, self.scale.direction)))

    @property
    def named(self) -> str:
        """The task, and its protocol where it has several."""
        return labels.joined(self.task, self.differs)

    @property
    def title(self) -> str:
        return labels.joined(self.task, "; ".join(filter(None, (self.differs, self.view))))


def leaderboard(
    records: Iterable[Record],
    tasks: Sequence[str] | None = None,
    completions: Completions | None = None,
    view: View = EVERYTHING,
) -> list[Section]:
    """One section per task and protocol, in alphabetical order; ``view`` selects the rows of a section.

    ``tasks`` selects by title; a bare name also finds its generated problems if it has no records of its own.
    ``completions`` reads the graded completions of a record (``Store.completions``): with them, intervals and ties are
    computed from single problems, without them from counts. Raises BadInput for a task without records.
    """
    by_task: dict[str, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in latest(records):
        by_task[record["task"]][record["protocol"]["hash"]].append(record)
    names = sorted(by_task) if tasks is None else list(dict.fromkeys(selected(by_task, tasks)))
    shown = [record for name in names for members in by_task[name].values() for record in members]
    if completions is not None and not inference.affordable(shown):
        completions = None
    return [
        section
        for name in names
        for protocol, differs in labels.of_protocols(by_task[name]).items()
        for section in _sections(by_task[name][protocol], differs, completions, view)
    ]


def latest(records: Iterable[Record]) -> list[Record]:
    """The newest attempt of each identity, in the order given."""
    newest: dict[str, Record] = {}
    for record in records:
        known = newest.get(record["identity"])
        if known is None or record["attempt"] > known["attempt"]:
            newest[record["identity"]] = record
    return list(newest.values())


def selected(known: Collection[str], tasks: Sequence[str]) -> Iterator[str]:
    for task in tasks:
        exact = task.removesuffix("@real")
        titles = [exact] if exact in known else [title for title in sorted(known) if title.partition("@")[0] == task]
        if not titles and not known:
            raise BadInput(f"nothing is recorded yet, for {task} or any other task")
        if not titles:
            raise unknown("task among the records", task, known)
        yield from titles


def _sections(
    members: Sequence[Record], differs: str, completions: Completions | None, view: View
) -> Iterator[Section]:
    everything = [
        Group(records, inference.read_matrix(records, completions) if completions else None)
        for records in alike(members)
    ]
    seeds = inference.seed_variance(everything)
    for words, groups, aside in split(everything, view):
        rows = _rows(groups, seeds, any_steps=view.kind == COMPUTE)
        ordered = sorted(zip(rows, groups, strict=True), key=lambda it: _place(it[0]))
        rows = _ranked(ordered, seeds)
        yield Section(
            task=groups[0].first["task"],
            protocol=groups[0].first["protocol"]["hash"],
            differs=differs,
            view=words,
            metric=groups[0].first["metric"],
            scale=groups[0].scale,
            problems=groups[0].problems,
            rows=rows,
            notes=[*_notes(groups, rows), *aside],
            aside=aside,
            firsts={row.key: group.first for row, group in ordered},
        )


def _place(row: LeaderboardRow) -> tuple[Any, ...]:
    """Sorts competitors before references, the best score first."""
    return row.reference, row.scale.place(row.score), row.label


def alike(members: Iterable[Record]) -> list[list[Record]]:
    """Records that differ in the training seed alone, by seed."""
    groups: dict[tuple[Any, ...], list[Record]] = defaultdict(list)
    for record in members:
        method = record["method"]
        what = {"settings": method["settings"]} | {k: v for k, v in record["spec"].items() if k != "seed"}
        key = json.dumps(what, sort_keys=True)
        groups[method["name"], method["variant"], record["student"], record["teacher"], key].append(record)
    return [sorted(group, key=lambda record: record["seed"]) for group in groups.values()]


def _rows(groups: Sequence[Group], seeds: SeedVariance | None, *, any_steps: bool) -> list[LeaderboardRow]:
    details = labels.of_rows([group.first for group in groups])
    over = inference.over_baseline(groups, any_steps=any_steps, seeds=seeds)
    moved = inference.recovery(groups, seeds)
    return [_row(group, seeds, *parts) for group, *parts in zip(groups, details, over, moved, strict=True)]


def _row(
    group: Group, seeds: SeedVariance | None, details: str, over: Distance | None, moved: Distance | None
) -> LeaderboardRow:
    """The row of a group: means of its scores and costs, sums of its counts, and what its first record names."""
    first, records = group.first, group.records
    (low, high), how = inference.interval(group, seeds)
    cost = {key: fmean(record["cost"][key] for record in records) for key in first["cost"]}
    counts = {key: sum(record["counts"][key] for record in records) for key in first["counts"]}
    return LeaderboardRow(
        task=first["task"],
        protocol=first["protocol"]["hash"],
        metric=first["metric"],
        scale=group.scale,
        kind=first["kind"],
        method=labels.name_of(first["method"]),
        details=details,
        role=group.roles.role,
        reference=group.reference,
        reconstruction=group.roles.reconstruction,
        note=note_of(first["method"]),
        student=first["student"],
        teacher=first["teacher"],
        settings=first["method"]["settings"],
        score=group.score,
        low=low,
        high=high,
        interval_method=how,
        seeds=tuple(record["seed"] for record in records),
        **counts,
        teacher_tokens=cost["teacher_forward_tokens"],
        generated_tokens=cost["generated_tokens"],
        student_tokens=cost["student_tokens"],
        seconds=cost["seconds"],
        peak_memory_bytes=cost["peak_memory_bytes"],
        steps=cost["steps"],
        flops=_flops(records),
        run_ids=tuple(record["run_id"] for record in records),
        convention=first["convention"],
        training=labels.training(first),
        baseline=over.mark if over else None,
        over_baseline=over.value if over else None,
        over_baseline_p=over.p if over else None,
        recovery=moved.value if moved else None,
        recovery_p=moved.p if moved else None,
    )


def _flops(records: Sequence[Record]) -> float | None:
    try:
        return equal_compute.median_cost(records, "flops")
    except BadInput:  # list a row even if its cost is unknown in this unit
        return None


def _ranked(ordered: Sequence[tuple[LeaderboardRow, Group]], seeds: SeedVariance | None) -> list[LeaderboardRow]:
    """The rows with rank and p against the best; equal scores share a rank."""
    competitors = [(row, group) for row, group in ordered if not row.reference]
    if not competitors:
        return [row for row, _ in ordered]
    best = competitors[0][1]
    p_best = [None, *intervals.holm([inference.p_value(best, group, seeds) for _, group in competitors[1:]])]
    scores = [row.score for row, _ in competitors]
    ranked = [
        dataclasses.replace(row, rank=scores.index(row.score) + 1, p_best=p)
        for (row, _), p in zip(competitors, p_best, strict=True)
    ]
    return ranked + [row for row, _ in ordered if row.reference]


def _notes(groups: Sequence[Group], rows: Sequence[LeaderboardRow]) -> list[str]:
    """All footnotes of a section."""
    notes = [footnotes.MICRO] if groups[0].first["world"] != "real" else []
    reconstructed = {f"{row.method.partition('@')[0]}: {row.note}" for row in rows if row.reconstruction}
    notes += [f"{RECONSTRUCTED} {note}" for note in sorted(reconstructed)]
    if any(row.tied for row in rows):
        paired = all(group.matrix is not None for group in groups)
        if not all(group.is_mean for group in groups):
            metric = groups[0].first["metric"]
            notes.append(f"{metric} is no mean over problems, so no difference between rows is tested")
        test = "paired" if paired else "by counts where completions were not read"
        notes.append(f"{TIED} not distinguishable from the best (p ≥ {LEVEL}, {test}, Holm-adjusted)")
    return (
        notes + _weights_without_effect(groups, rows) + footnotes.differences(groups) + footnotes.single_seeds(groups)
    )


def _weights_without_effect(groups: Sequence[Group], rows: Sequence[LeaderboardRow]) -> list[str]:
    """A line for every row whose token weights hardly change the loss."""
    label_of = {row.run_ids: row.label for row in rows}
    moved = {label_of[tuple(r["run_id"] for r in g.records)]: report.moves_little(g.records) for g in groups}
    return [
        f"{label}: its token weights move {100 * share:.1f} % of the signal, so they have almost no effect"
        for label, share in moved.items()
        if share is not None
    ]


def order(sections: Iterable[Section]) -> list[str]:
    """The labels of all trained rows, in their tables and together: a method has one colour in all figures."""
    sections = list(sections)
    together = labels_of(sections)
    rows = [row for section in sections for row in section.rows if not row.reference]
    return sorted({row.label for row in rows} | {together[row.key] for row in rows})


def labels_of(sections: Iterable[Section]) -> dict[tuple[str, ...], str]:
    """A unique label for each row, by its key, for rows of several sections in one table or legend."""
    # A section names only what differs within it, so the longest label of a row is the most specific.
    longest: dict[tuple[str, ...], tuple[LeaderboardRow, Record]] = {}
    for section in sections:
        for row in section.rows:
            known = longest.get(row.key)
            if known is None or len(row.label) > len(known[0].label):
                longest[row.key] = row, section.firsts[row.key]
    rows = [row for row, _ in longest.values()]
    details = labels.apart([(row.method, row.details) for row in rows], [first for _, first in longest.values()])
    return {row.key: labels.joined(row.method, words) for row, words in zip(rows, details, strict=True)}
