"""The Python interface: what the commands do, as functions that return pandas frames.

    import harness
    frame = harness.run(methods=["gkd", "vcrd"], tasks=["amc23"], seeds=[0, 1, 2])
    harness.compare("gkd", "vcrd")
    harness.leaderboard(view="compute")
    harness.completions(frame.run_id[0])

Every function makes the same checks as its command, reads and writes the same results folder (``HARNESS_RESULTS``,
else ``results``) unless ``results`` names one, and raises
:class:`harness.BadInput` with one sentence where the command would exit with code 2. Warnings are Python warnings.
"""

from __future__ import annotations

import json
import os
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import api_arguments as given
from harness import options, registry
from harness.api_arguments import Names
from harness.errors import BadInput
from harness.records import default_folder

if TYPE_CHECKING:
    import pandas

    from harness.records.store import Store

COMPARED = {
    "task": "title of the task",
    "a": "the row subtracted",
    "b": "the row it is subtracted from",
    "score_a": "mean over seeds and problems",
    "score_b": "the same of b",
    "difference": "score_b - score_a",
    "low": "lower end of the 95 % interval of the difference",
    "high": "upper end of it",
    "p": "p-value of this task alone",
    "p_holm": "p-value adjusted over the tasks compared together",
    "differs": "whether p_holm is below 0.05",
    "test": "the test that gave p",
    "problems": "problems compared",
    "seeds": "training seeds that both have",
    "minimum_detectable": "smallest difference found with 80 % power",
    "more_seeds": "additional seeds that would settle this difference; missing if no number would",
    "more_problems": "additional problems that would settle it; missing if no number would",
    "metric": "what the scores are",
    "protocol": "hash of the protocol of both",
    "sentence": "the answer in words",
}
"""The columns of :func:`compare`."""


def run(
    methods: Names,
    tasks: Names,
    *,
    seeds: int | Iterable[int] = 0,
    recipe: str | Path | None = None,
    student: str | Path | None = None,
    teacher: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    results: str | Path | None = None,
    judge: str | None = None,
    protocol: str | None = None,
    device: str | None = None,
    control: bool = False,
    again: bool = False,
    track: Names = (),
    progress: bool = True,
) -> pandas.DataFrame:
    """Distils every method with every seed, evaluates it on every task, and records it: ``harness run``.

    ``settings`` are those of ``--set``: ``{"training.steps": 50, "method.beta": 0.3}``. ``control`` adds the control
    with shuffled weights of every method that weights tokens. What is recorded already is returned as it is, and
    interrupted work continues, unless ``again``. ``progress`` moves a bar in a terminal or a notebook, and elsewhere
    writes a line now and then.

    Returns one row per (method, seed, task) with the columns of :func:`load_results` and ``reused``, whether the record
    existed before. Raises BadInput before any work for what the command refuses; RunFailed when the work fails.
    """
    method_names, task_names = given.names(methods, "methods"), given.names(tasks, "tasks")
    chosen = given.seeds(seeds)
    trackers = given.names(track, "track") if track else []
    for what, value in (("recipe", recipe), ("student", student), ("teacher", teacher)):
        given.word(what, value, "a name or the path of a file")
    for what, value in (("judge", judge), ("protocol", protocol), ("device", device)):
        given.word(what, value, "a name", str)
    registry.known_names(registry.METHODS, method_names)  # report a slip before the imports that take seconds
    registry.known_names(registry.TASKS, task_names)
    if not isinstance(settings or {}, Mapping):
        raise BadInput(
            f"settings={settings!r:.80} is not a mapping of keys to values, such as {{'training.steps': 50}}"
        )
    _quiet_libraries()
    from harness.estimate import memory_check
    from harness.launch import processes
    from harness.leaderboard.table import frame_of
    from harness.plan import RunRequest, prepare
    from harness.progress import Reporter
    from harness.request import unused_options
    from harness.run import run as run_plan

    if processes.several():
        raise BadInput("harness.run is one process; start several with: accelerate launch -m harness.launch run …")
    request = RunRequest(
        methods=method_names,
        tasks=task_names,
        recipe=given.text(recipe),
        student=given.text(student),
        teacher=given.text(teacher),
        seeds=chosen,
        settings=[f"{key}={options.as_word(value)}" for key, value in (settings or {}).items()],
        results=_store(results).root,
        device=device,
        judge=judge,
        protocol=protocol,
        again=again,
        control=control,
        track=trackers,
    )
    plan = prepare(request)
    for line in unused_options(plan):
        warnings.warn(line, stacklevel=2)
    memory_check.check(plan, lambda line: warnings.warn(line.removeprefix("warning: "), stacklevel=2))
    with Reporter() if progress else nullcontext() as reporter:
        if reporter is None:
            records = run_plan(plan, lambda *_: None, lambda _: None)
        else:
            records = run_plan(plan, reporter.progress, reporter.announce)
    return frame_of(records).assign(reused=[record["reused"] for record in records])


def leaderboard(
    tasks: Names | None = None,
    *,
    results: str | Path | None = None,
    view: str = "all",
    cost: str = "flops",
    anchor: str | None = None,
    protocol: str | None = None,
) -> pandas.DataFrame:
    """The leaderboard of the recorded results, one row per task, protocol and method over its seeds: ``harness table``.

    ``view`` is "all", "steps" (rows of equal optimizer steps stand together) or "compute" (rows whose ``cost``, in
    "flops", "tokens" or "seconds", is that of ``anchor``). Scores are in the metric's own range; ``low`` and ``high``
    bound the 95 % interval. ``rank`` holds within a section, which ``task``, ``protocol`` and ``view`` name.
    """
    import pandas

    from harness.leaderboard.table import View, row_dicts
    from harness.leaderboard.table import leaderboard as sections_of
    from harness.records.record import measured_under

    given.view(view, cost, anchor)
    given.word("protocol", protocol, "a name or the beginning of a hash", str)
    store, records = _records(results)
    records = [one for one in records if measured_under(one, protocol)]
    if not records:
        raise BadInput(f"no records in {store.root}" + (f" under protocol {protocol}" if protocol else ""))
    chosen = None if tasks is None else given.names(tasks, "tasks")
    sections = sections_of(records, chosen, store.completions, View(view, cost, anchor))
    return pandas.DataFrame(row_dicts(sections))


def compare(
    a: str,
    b: str,
    tasks: Names | None = None,
    *,
    results: str | Path | None = None,
    protocol: str | None = None,
    view: str = "all",
    cost: str = "flops",
    together: bool = False,
) -> pandas.DataFrame:
    """Whether ``b`` differs from ``a``, one row per task: ``harness compare``.

    ``a`` and ``b`` are named as in a table: ``"gkd"``, ``"sft:training.steps=900"``. ``tasks`` are all that both have
    if it is left out. The columns are those of :data:`COMPARED`; ``view`` and ``cost`` as in :func:`leaderboard`.
    ``together`` adds a last row for the problems of all tasks, each of equal weight. Raises BadInput when there is
    nothing to pair, or when a name has several rows.
    """
    import pandas

    from harness.leaderboard.compare import comparison_as_json
    from harness.leaderboard.equal_compute import View
    from harness.leaderboard.together import over_tasks

    given.view(view, cost)
    given.word("protocol", protocol, "a name or the beginning of a hash", str)
    for what, row in (("a", a), ("b", b)):
        if not isinstance(row, str):
            raise BadInput(f"{what}={row!r:.80} is not a row; give one name as printed in a table")
    store, records = _records(results)
    chosen = None if tasks is None else given.names(tasks, "tasks")
    found = over_tasks(records, a, b, chosen, store.completions, protocol, View(view, cost))
    for line in found.left_out if together else found.without:
        warnings.warn(line, stacklevel=2)
    rows = []
    for answer in [*found.tasks, *([found.together] if together and found.together else [])]:
        row = comparison_as_json(answer)
        low, high = row["comparison"]["interval"]
        rows.append(row | row["comparison"] | {"low": low, "high": high})
    # What holds for every task is said once.
    notes = dict.fromkeys(note for answer in found.tasks for note in answer.notes)
    for note in notes:
        of = [answer.task for answer in found.tasks if note in answer.notes]
        warnings.warn(note if len(of) == len(found.tasks) else f"{', '.join(of)}: {note}", stacklevel=2)
    return pandas.DataFrame(rows, columns=list(COMPARED))


def completions(run_id: str | Path, *, results: str | Path | None = None) -> pandas.DataFrame:
    """The completions of a recorded run with their verdicts, one row each.

    ``run_id`` is a run id, a beginning that only one has, or a record file. ``prompt`` and ``reference`` are read from
    the benchmark; they are missing, with a warning, if its files are missing or have changed.
    """
    import pandas

    from harness.evaluation import questions

    if not isinstance(run_id, (str, Path)) or not str(run_id):
        raise BadInput(f"run_id={run_id!r:.80} is no run id; give one, its beginning, or a record file")
    store = _store(results)
    record = store.get(run_id)
    rows = store.completions(record)
    problems, reason = questions.of(record)
    if reason:
        warnings.warn(f"prompts and references are missing: {reason}", stacklevel=2)
    known = [problems.get(row["problem_id"]) for row in rows]
    frame = pandas.DataFrame(rows)
    prompts = [None if problem is None else questions.prompt_text(problem) for problem in known]
    references = [None if problem is None else questions.reference_text(problem) for problem in known]
    frame.insert(2, "prompt", prompts)
    frame.insert(3, "reference", references)
    return frame


@dataclass(frozen=True)
class Graded:
    """What :func:`grade` found: ``task``, ``metric``, ``score``, its 95 % ``interval``, ``counts`` and ``warnings``.

    ``verdicts`` is a frame with a row per completion: its problem, sample, score and reason, and what was extracted.
    ``protocol`` is the published protocol, None for the task's own.
    """

    task: str
    metric: str
    score: float
    interval: tuple[float, float]
    counts: Mapping[str, float]
    protocol: str | None  # of the task's published protocols; None for its own
    warnings: tuple[str, ...]
    verdicts: pandas.DataFrame


def grade(
    task: str,
    samples: str | Path | Iterable[Mapping[str, Any]] | pandas.DataFrame,
    *,
    judge: str | None = None,
    protocol: str | None = None,
    results: str | Path | None = None,
) -> Graded:
    """Grades completions without a model: ``harness grade``.

    ``samples`` is a JSON Lines file, or rows in one of its formats, as mappings or a frame: ``{"problem_id":
    "HumanEval/0", "sample": 0, "text": …}``, EvalPlus' ``task_id`` with ``completion`` or ``solution``, and others.
    Verdicts of a judge are cached below ``results``.
    """
    _quiet_libraries()
    import pandas

    from harness.evaluation.grade import grade as grade_file

    if not isinstance(task, (str, Path)) or not str(task):
        raise BadInput(f"task={task!r:.80} is not a task; give one name, or the path of the file that has it")
    given.word("judge", judge, "a name", str)
    given.word("protocol", protocol, "a name", str)
    keep = _store(results).root / "work" / "judgements"
    if isinstance(samples, (str, Path)):
        outcome = grade_file(str(task), Path(samples), judge, protocol, keep)
    else:
        rows = samples.to_dict("records") if isinstance(samples, pandas.DataFrame) else samples
        if not isinstance(rows, Iterable):
            raise BadInput(f"samples={rows!r:.80} are not rows; give a file, a list of mappings, or a frame")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "samples.jsonl"
            path.write_text("".join(_line(number, row) for number, row in enumerate(rows, 1)), "utf-8")
            try:
                outcome = grade_file(str(task), path, judge, protocol, keep)
            except BadInput as error:
                raise BadInput(str(error).replace(f"{folder}{os.sep}", "")) from None
    for line in outcome["warnings"]:
        warnings.warn(line, stacklevel=2)
    low, high = outcome["interval"]
    return Graded(
        task=outcome["task"],
        metric=outcome["metric"],
        score=outcome["score"],
        interval=(low, high),
        counts=outcome["counts"],
        protocol=outcome["protocol"],
        warnings=tuple(outcome["warnings"]),
        verdicts=pandas.DataFrame(outcome["verdicts"]),
    )


def _quiet_libraries() -> None:
    """Turns off the progress bars of libraries, which read this on import, and tqdm's warning about missing widgets."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        import tqdm.auto  # noqa: F401


def _store(results: str | Path | None) -> Store:
    """The results folder, that of the commands if none is named."""
    from harness.records.store import Store

    return Store(default_folder() if results is None else results)


def _records(results: str | Path | None) -> tuple[Store, list[dict[str, Any]]]:
    """The store and its sound records; the others become warnings."""
    store = _store(results)
    records, left_out = store.all()
    for line in left_out:
        warnings.warn(line, stacklevel=3)
    return store, records


def _line(number: int, row: Any) -> str:
    """A row of samples as a line of JSON. Raises BadInput for what JSON does not hold."""
    if not isinstance(row, Mapping):
        raise BadInput(f"samples: row {number} is not a mapping of field names to values")
    try:
        return json.dumps(dict(row), default=_plain) + "\n"
    except (TypeError, ValueError) as error:
        raise BadInput(f"samples: row {number}: {error}") from None


def _plain(value: Any) -> Any:
    """The Python value of a numpy scalar."""
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} {value!r} is not JSON")
