"""``harness grade``: grades stored completions and computes their score. Needs no model.

The completions of a record get the score of the record, and ``samples_sha256`` equals the hash in the record.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from harness import unused_options
from harness.errors import BadInput
from harness.evaluation import evaluate
from harness.evaluation.benchmarks import open_task
from harness.evaluation.samples import Samples, read
from harness.task import Task
from harness.types import Verdict

STORED_MICRO = re.compile(r".+@micro-s\d+-[0-9a-f]{8}(-r\d+)?")  # the run id of a record of the micro world


def grade(
    name: str, path: Path, judge: str | None = None, protocol: str | None = None, keep: Path | None = None
) -> dict[str, Any]:
    """The score of the completions in ``path`` on the task ``name``, as a JSON object.

    A bare name means the real benchmark, unless a run in the micro world stored the file. ``protocol`` is one of the
    task's protocols, by default its own; ``keep`` is the folder that caches a judge's answers. Raises BadInput for an
    unknown task or protocol, missing data or judge, or a file that :func:`read` refuses; RunFailed if no verdict was
    reached.
    """
    stored_micro = STORED_MICRO.fullmatch(path.stem) is not None
    task = open_task(name, "micro" if stored_micro else "real", judge, keep, protocol)
    if stored_micro and task.data.world != "micro":
        raise BadInput(f"{path}: holds completions of the micro world, not of {task.title}; name the task with @micro")
    unused_options.judge_heard([task], judge)
    samples = read(task, path)
    rows = evaluate.rows(samples.completions, _verdicts(task, samples))
    score = evaluate.score(task, rows)
    figures = evaluate.figures(task, rows, read=[program is None for program in samples.programs])
    if as_they_are := sum(program is not None for program in samples.programs):
        figures |= {"run_as_they_are": as_they_are, "extracted": len(rows) - as_they_are}
    return {
        "task": task.title,
        "task_version": task.version,
        "protocol": task.protocol,
        "world": task.data.world,
        "metric": task.metric,
        "score": score.value,
        "interval": list(score.interval),
        "interval_method": score.interval_method,
        "counts": score.counts,
        "measures": figures,
        "problems": len({row["problem_id"] for row in rows}),
        "problems_total": len(task.items),
        "dataset": {"source": task.data.source, "sha256": task.data.sha256},
        "grader": task.grader_identity(),
        "samples_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "warnings": [
            *samples.warnings,
            *evaluate.warnings_of(task, rows, score.counts, figures),
        ],
        "verdicts": [
            {key: row[key] for key in ("problem_id", "sample", "score", "reason", "extracted", "error")} for row in rows
        ],
    }


def _verdicts(task: Task, samples: Samples) -> list[Verdict]:
    """Verdicts in order. A ``solution`` in EvalPlus' format is run as it is; other texts go through extraction."""
    completions = samples.completions
    runs = [program is not None and hasattr(task, "grade_programs") for program in samples.programs]
    as_programs = iter(
        task.grade_programs(
            [c for c, run in zip(completions, runs, strict=True) if run],
            [p for p, run in zip(samples.programs, runs, strict=True) if run],
        )
        if any(runs)
        else ()
    )
    as_answers = iter(evaluate.verdicts_of(task, [c for c, run in zip(completions, runs, strict=True) if not run]))
    return [next(as_programs if run else as_answers) for run in runs]
