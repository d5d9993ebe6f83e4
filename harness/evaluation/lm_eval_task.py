"""``--task lm_eval:NAME``: any task of lm-eval, prompted and graded by lm-eval, with the score in a record.

Detects regressions of general ability. Prompts, extraction and grading are lm-eval's, under its version of the task;
the harness' sandbox, protocols and graders are not used. ``lm_eval:FOLDER/NAME`` loads the task from a folder of task
files, without scanning the built-in ones.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput, RunFailed
from harness.task import Data, Dataset, Task
from harness.types import Decoding, Problem, Prompt, Verdict

if TYPE_CHECKING:
    from harness.models.generate import Generator


class LmEvalTask(Task):
    """A task of lm-eval. The score is its first metric that is in [0, 1] for every document.

    lm-eval extracts an answer with each of the task's filters (strict-match, flexible-extract, …) and computes every
    metric for each of them. The score uses the first filter; the others are reported besides.
    """

    family, metric, grader = "lm-eval", "lm-eval", "lm-eval"
    dataset = Dataset("", "EleutherAI/lm-evaluation-harness", "0" * 40, "", "0" * 64, 0)
    measures_itself = True

    def __init__(self, name: str, loaded: Mapping[str, Any]):
        tasks = loaded["tasks"]
        if list(tasks) != [name]:
            raise BadInput(f"lm_eval:{name} is a group; name one of its tasks: {', '.join(sorted(tasks)[:8])}")
        self.loaded, self.lm_eval_task = loaded, tasks[name]
        self.bare, self.name, self.version = name, f"lm_eval:{name}", str(self.lm_eval_task.VERSION)
        self.decoding = _decoding(self.lm_eval_task)
        self.filters = _filters(self.lm_eval_task)
        self.extractor = f"lm-eval's filter {self.filters[0]!r}" + _besides(self.filters[1:])
        self.by_filter: dict[str, dict[str, float]] = {}  # filled by measure() if there are several filters
        rows = list(self.lm_eval_task.eval_docs)
        content = json.dumps(rows, sort_keys=True, default=str).encode()
        super().__init__(Data(rows, hashlib.sha256(content).hexdigest(), f"lm-eval's task {name}"))

    def problems(self, rows: Sequence[Mapping[str, Any]]) -> list[Problem]:
        texts = [json.dumps(row, sort_keys=True, default=str) for row in rows]
        return [Problem(str(i), Prompt(user=text, plain=text)) for i, text in enumerate(texts)]

    def grade(self, problem: Problem, text: str) -> Verdict:
        raise BadInput(f"{self.name} is graded by lm-eval during the run; stored completions cannot be graded again")

    def grader_identity(self) -> dict[str, Any]:
        config = self.lm_eval_task.dump_config()
        text = json.dumps(config, sort_keys=True, default=lambda value: type(value).__name__)
        return {
            "engine": "lm-eval",
            "version": version("lm-eval"),
            "task_version": self.version,
            "config_sha256": hashlib.sha256(text.encode()).hexdigest(),
        } | ({"score_filter": self.filters[0], "filters": self.filters} if len(self.filters) > 1 else {})

    def measure(self, generator: Generator, limit: int | None, seed: int) -> tuple[list[dict[str, Any]], str]:
        """One row per document, and the first prompt. Raises RunFailed if lm-eval fails or gives no such metric."""
        from harness.models.lm_eval_adapter import run_lm_eval_task

        results = run_lm_eval_task(self.bare, generator, limit, loaded=dict(self.loaded), seed=seed)
        samples = results["samples"][self.bare]
        higher = results["higher_is_better"][self.bare]
        # lm-eval returns one row per document and filter; the score uses the rows of the first filter.
        groups = {name: [s for s in samples if s.get("filter", self.filters[0]) == name] for name in self.filters}
        first = groups[self.filters[0]]
        metric = _fraction(first, higher)
        if metric is None:
            raise RunFailed(f"{self.name}: lm-eval gives no metric that is a fraction of one for each document")
        if len(groups) > 1:
            self.by_filter = {name: _means(group, higher) for name, group in groups.items()}
        return [_row(sample, metric) for sample in first], str(first[0]["arguments"][0][0])

    def measures(self, graded: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """The mean of every metric under every filter, if the task has several filters."""
        return super().measures(graded) | ({"filters": self.by_filter} if self.by_filter else {})


def open_lm_eval_task(name: str) -> LmEvalTask:
    """Opens ``NAME`` or ``FOLDER/NAME``. Raises BadInput for an unknown task, RunFailed if its data is missing."""
    from harness.models.lm_eval_adapter import load_lm_eval_task

    folder, slash, bare = name.rpartition("/")
    if slash and not Path(folder).is_dir():
        raise BadInput(f"lm_eval:{name}: no folder of task files at {folder}")
    return LmEvalTask(bare, load_lm_eval_task(bare, Path(folder) if slash else None))


def _decoding(lm_eval_task: Any) -> Decoding:
    """The task's own decoding. Raises BadInput for a setting that the harness' generators do not support."""
    from harness.models.lm_eval_adapter import decoding_from

    if lm_eval_task.OUTPUT_TYPE != "generate_until":
        return Decoding(max_new_tokens=0)  # the task scores continuations and generates none
    return decoding_from(lm_eval_task.get_config("generation_kwargs") or {}, lm_eval_task.get_config("task"))


def _filters(lm_eval_task: Any) -> list[str]:
    """The names of the task's filters in order; lm-eval calls the filter of a task without any ``none``."""
    return [each.name for each in getattr(lm_eval_task, "_filters", [])] or ["none"]


def _besides(names: Sequence[str]) -> str:
    return f", the task's first; also reported: {', '.join(map(repr, names))}" if names else ""


def _means(samples: Sequence[Mapping[str, Any]], higher_is_better: Mapping[str, bool]) -> dict[str, float]:
    """The mean of every metric that is a number for every document."""
    means = {}
    for metric in higher_is_better:
        values = [sample.get(metric) for sample in samples]
        if values and all(isinstance(value, int | float) for value in values):
            means[metric] = fmean(values)
    return means


def _fraction(samples: Sequence[Mapping[str, Any]], higher_is_better: Mapping[str, bool]) -> str | None:
    """The first metric where higher is better and every document has a value in [0, 1]; None if there is none."""
    for metric, better in higher_is_better.items():
        values = [sample.get(metric) for sample in samples]
        if better and values and all(isinstance(v, int | float) and 0 <= v <= 1 for v in values):
            return metric
    return None


def _row(sample: Mapping[str, Any], metric: str) -> dict[str, Any]:
    answers = sample["filtered_resps"]
    extracted = json.dumps(answers, ensure_ascii=False, default=str)
    return {
        "problem_id": str(sample["doc_id"]),
        "sample": 0,
        "text": json.dumps(sample["resps"], ensure_ascii=False, default=str),
        "tokens": 0,
        "finish": "stop",
        "score": float(sample[metric]),
        "reason": f"{metric} by lm-eval, target {str(sample['target'])[:80]}",
        "extracted": extracted,
        "error": False,
    }
