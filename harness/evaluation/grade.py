"""``harness grade``: grades stored completions and scores them. Needs no model.

The completions of a record get its score again; ``samples_sha256`` then equals the hash in the record.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from harness import request
from harness.errors import BadInput
from harness.evaluation import cards, evaluate
from harness.evaluation.benchmarks import GENERATED, open_task
from harness.evaluation.samples import Samples, content_of, read
from harness.task import Task
from harness.types import Verdict

# The run id of a record of generated problems.
STORED = re.compile(rf".+@({'|'.join(GENERATED)})-s\d+-[0-9a-f]{{8}}(-r\d+)?")


def grade(
    name: str, path: Path, judge: str | None = None, protocol: str | None = None, keep: Path | None = None
) -> dict[str, Any]:
    """The score of the completions in ``path`` on the task called ``name``, ready for JSON.

    A bare name is the real benchmark, unless the file is what a run on generated problems stored.
    ``protocol`` names one of the task's, its own unless given; ``keep`` is where a judge's answers are kept.
    Raises BadInput for an unknown task or protocol, missing data or judge, or a file that :func:`read` refuses;
    RunFailed when no verdict was reached.
    """
    stored = STORED.fullmatch(path.name.removesuffix(".gz").removesuffix(".jsonl"))
    world = stored[1] if stored else "real"
    protocol = None if protocol is None else cards.protocol_called([name], protocol)
    task = open_task(name, world, judge, keep, protocol)
    if stored and task.data.world != world:
        raise BadInput(
            f"{path}: holds completions of the {world} world, not of {task.title}; name the task with @{world}"
        )
    request.unused_judge([task], judge)
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
        **({"metric_card": score.metric_card} if score.metric_card else {}),
        **score.as_json(),
        "measures": figures,
        "problems": len({row["problem_id"] for row in rows}),
        "problems_total": len(task.items),
        "dataset": {"source": task.data.source, "sha256": task.data.sha256},
        "grader": task.grader_identity(),
        "samples_sha256": hashlib.sha256(content_of(path)).hexdigest(),
        "warnings": [
            *samples.warnings,
            *evaluate.warnings_of(task, rows, score.counts, figures),
        ],
        "verdicts": [
            {key: row[key] for key in ("problem_id", "sample", "score", "reason", "extracted", "error")} for row in rows
        ],
    }


def _verdicts(task: Task, samples: Samples) -> list[Verdict]:
    """Grades the completions. A ``solution`` of EvalPlus' format runs unchanged, as in EvalPlus."""
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
