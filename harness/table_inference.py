"""What the rows of a section may claim: intervals over seeds, ties with the best, gain and recovery.

Where the scores of the single problems are at hand, seeds and problems are both random and tests are paired.
Where they are not, counts stand in, on the cautious side: problems shared by seeds count once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness import statistics
from harness.errors import BadInput
from harness.record import Record
from harness.statistics import Interval, SeedVariance

BASELINE = "sft"  # what a gain is measured against
FLOOR, CEILING = "untouched", "teacher"  # the students between which recovery runs from 0 to 1
READ_AT_MOST = 200_000  # completions read for one leaderboard, a few seconds' worth; beyond, counts must do
FILE_WEIGHT = 100  # opening a file takes as long as reading this many completions

Completions = Callable[[Record], Sequence[Mapping[str, Any]]]


@dataclass(frozen=True)
class Matrix:
    """Scores [S, N] of the seeds of one row on the problems ``ids``."""

    ids: tuple[str, ...]
    scores: NDArray[np.float64]


def affordable(records: Iterable[Record]) -> bool:
    """Whether reading the completions of ``records`` stays within what a table may take."""
    return sum(record["completions"]["n"] + FILE_WEIGHT for record in records) <= READ_AT_MOST


def matrix(group: Sequence[Record], completions: Completions) -> Matrix | None:
    """The scores of every problem, or None where completions are damaged or seeds saw other problems."""
    try:
        by_seed = [problem_scores(completions(record), record["metric"]) for record in group]
    except BadInput:
        return None
    ids = tuple(sorted(by_seed[0]))
    if not ids or any(scores.keys() != by_seed[0].keys() for scores in by_seed):
        return None
    return Matrix(ids, np.array([[scores[i] for i in ids] for scores in by_seed]))


def problem_scores(rows: Iterable[Mapping[str, Any]], metric: str) -> dict[str, float]:
    """The mean score of each problem over its samples; verdicts not reached leave a win rate, as in its score."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if not (row["error"] and metric == "win_rate"):
            found.setdefault(row["problem_id"], []).append(row["score"])
    return {problem: sum(scores) / len(scores) for problem, scores in found.items()}


def problems(record: Record) -> int:
    """How many problems the record's score is a mean of."""
    dataset = record["protocol"].get("dataset")
    return dataset["n"] if isinstance(dataset, Mapping) and "n" in dataset else record["counts"]["total"]


def interval(group: Sequence[Record], table: Matrix | None, seeds: SeedVariance | None) -> tuple[Interval, str]:
    """The 95 % interval of the mean over the seeds in ``group``, and how it was had.

    ``seeds`` is the variance between seeds as pooled over the rows of the section.
    """
    if len(group) == 1:
        return Interval(*group[0]["interval"]), group[0]["interval_method"]
    if table is not None and is_reference(group[0]):  # never trained: its seeds are but more samples
        return statistics.mean_interval(table.scores.mean(axis=0)), "over problems"
    if table is not None:
        return statistics.mean_interval(table.scores, seeds=seeds), "over seeds and problems"
    scores = np.array([record["score"] for record in group])
    mean, n = float(scores.mean()), problems(group[0])
    variance = mean * (1 - mean) / n + scores.var(ddof=1) / len(group)
    effective = mean * (1 - mean) / variance if variance > 0 else n
    return statistics.wilson(mean * effective, effective), "from counts"


def p_value(best: Sequence[Record], best_table: Matrix | None, group: Sequence[Record], table: Matrix | None) -> float:
    """Two-sided p of a row against the best row: paired where the problems allow, else by counts."""
    if best_table is None or table is None or best_table.ids != table.ids:
        n, m = problems(best[0]), problems(group[0])
        a, b = (float(np.mean([record["score"] for record in row])) for row in (best, group))
        return statistics.difference_of_counts(a * n, n, b * m, m)
    # Seeds of different methods share nothing but their number: any pairing of them will do.
    seeds = min(len(best_table.scores), len(table.scores))
    return statistics.paired_test(best_table.scores[:seeds], table.scores[:seeds])[0]


def gain(record: Record, score: float, others: Iterable[tuple[Record, float]]) -> float | None:
    """By how much ``score`` exceeds that of sft under the same recipe; None unless there is just one such row."""
    if is_reference(record) or record["method"]["name"] == BASELINE:
        return None
    baselines = [s for other, s in others if _is(other, BASELINE) and _one_recipe(record, other)]
    return score - baselines[0] if len(baselines) == 1 else None


def recovery(record: Record, score: float, others: Sequence[tuple[Record, float]]) -> float | None:
    """The share of the way from the untouched student to the teacher; None where either is not recorded."""
    if is_reference(record):
        return None
    teacher = record["spec"].get("teacher", record["teacher"])
    floors = [s for o, s in others if _is(o, FLOOR) and _model(o) == _model(record)]
    ceilings = [s for o, s in others if _is(o, CEILING) and (teacher is None or _model(o) == teacher)]
    if len(floors) != 1 or len(ceilings) != 1 or ceilings[0] <= floors[0]:
        return None
    return (score - floors[0]) / (ceilings[0] - floors[0])


def is_reference(record: Record) -> bool:
    """Whether the row is a mark to measure by, not a competitor."""
    return record["method"]["name"] in (FLOOR, CEILING)


def _is(record: Record, name: str) -> bool:
    return record["method"]["name"] == name and record["method"]["variant"] is None


def _model(record: Record) -> Any:
    """The identity of the model that was trained, or evaluated as it came."""
    return record["spec"].get("student", record["student"])


def _one_recipe(a: Record, b: Record) -> bool:
    """Whether two trainings agree on everything that both use, methods, seeds and teachers aside."""
    ignored = {"method", "seed", "teacher"}
    shared = [k for k in a["spec"].keys() & b["spec"].keys() - ignored if None not in (a["spec"][k], b["spec"][k])]
    return a["student"] == b["student"] and all(a["spec"][key] == b["spec"][key] for key in shared)
