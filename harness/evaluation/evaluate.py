"""Evaluates a generator on a task: completions, verdicts, and a score with its interval.

The generator caches its texts (:mod:`harness.models.generation_cache`), so an interrupted evaluation continues where it
stopped, and grading again generates nothing.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness import error_location, metric_contract, metrics, task_contract
from harness.errors import RunFailed
from harness.evaluation import round_trip
from harness.grading.thinking import Thought, answer_of, thought
from harness.metrics import metric_of
from harness.progress import TextCount, Watch
from harness.task import Task
from harness.types import Completion, Decoding, Problem, Prompt, Turn, Verdict

if TYPE_CHECKING:
    from harness.models.generate import Generator
    from harness.models.generation_cache import CachedGenerator
    from harness.models.server_generator import ServerGenerator

WINDOW = 4  # batches that are graded together


@dataclass(frozen=True)
class Score:
    """A score on its metric's scale, its 95 % interval, and what it was counted from."""

    value: float
    interval: tuple[float, float]
    interval_method: str
    counts: dict[str, float | int]
    metric_card: dict[str, Any] = dataclasses.field(default_factory=dict)  # of a metric that does not ship

    def as_json(self) -> dict[str, Any]:
        """The fields of a record that hold a score."""
        return {
            "score": self.value,
            "interval": list(self.interval),
            "interval_method": self.interval_method,
            "counts": self.counts,
        }


def prompt_warnings(task: Task, problems: Sequence[Problem], generator: Any, decoding: Decoding) -> list[str]:
    """Warnings about how the prompts reach the model: templates, truncation, tokenizers that change the text."""
    if task.measures_itself:
        return [f"{task.title}: {warning}" for warning in generator.warnings([], decoding)]
    warnings = [f"{task.title}: {w}" for w in generator.warnings([problem.prompt for problem in problems], decoding)]
    # Check that the tokenizer reproduces the text of the task. The tokenizer of a server is unknown.
    lost = round_trip.check_task(task, generator, problems).warning if hasattr(generator, "tokenizer") else None
    return [*warnings, lost] if lost else warnings


def first_prompt(task: Task, problems: Sequence[Problem], generator: Any) -> str:
    """The first problem as the model reads it; empty for a task that measures itself, whose ``measure`` returns it."""
    return "" if task.measures_itself or not problems else generator.render(problems[0].prompt)


def evaluate(
    task: Task,
    problems: Sequence[Problem],
    generator: Generator | CachedGenerator | ServerGenerator,
    decoding: Decoding,
    limit: int | None,
    seed: int,
    progress: Callable[[str, int, int, str], None],
) -> tuple[list[dict[str, Any]], str]:
    """Graded rows of all completions, as records keep them, and the first prompt."""
    # Some tasks, such as those of lm-eval, prompt and grade in one step.
    if task.measures_itself:
        with error_location.faults_as(RunFailed, called=type(task)):
            return task_contract.measured(task, task.measure(generator, limit, seed))
    return answer(task, problems, generator, decoding, seed, progress), first_prompt(task, problems, generator)


def answer(
    task: Task,
    problems: Sequence[Problem],
    generator: Generator | CachedGenerator | ServerGenerator,
    decoding: Decoding,
    seed: int,
    progress: Callable[[str, int, int, str], None],
) -> list[dict[str, Any]]:
    """Graded rows of all completions. A task with ``grades_aside`` is graded while the model continues to write."""
    answering, grading = f"answer {task.title}", f"grade {task.title}"
    windows: list[Future[list[Verdict]]] = []

    def look(window: list[Completion]) -> None:
        for earlier in windows:
            if earlier.done():
                earlier.result()  # raise the error of a window now, before more is generated
        windows.append(thread.submit(verdicts_of, task, window))

    # One thread grades windows in order while this one generates; otherwise grading waits for the last text.
    thread = ThreadPoolExecutor(1, thread_name_prefix="grade")
    try:
        completions = complete(
            task,
            problems,
            generator,
            decoding,
            seed,
            lambda done, total, details: progress(answering, done, total, details),
            look if task.grades_aside else lambda window: None,
        )
        progress(grading, 0, len(completions), "")
        aside = [verdict for window in windows for verdict in window.result()]
        verdicts = aside if task.grades_aside else verdicts_of(task, completions)
    finally:
        thread.shutdown(cancel_futures=True)  # after an interrupt, wait for one window only
    progress(grading, len(completions), len(completions), "")
    return rows(completions, verdicts)


def verdicts_of(task: Task, completions: Sequence[Completion]) -> list[Verdict]:
    """The task's verdicts. Grades the text after its thinking part, unless the task grades the whole text."""
    # Graders see the answer alone: a number in the thinking part is not an answer.
    if not task.thoughts_are_graded:
        completions = [dataclasses.replace(c, text=answer_of(c.text)) for c in completions]
    # If a grader fails (a judge without a connection), no text is lost: the cache has them.
    try:
        return task.verdicts(completions)
    except RunFailed as error:
        raise RunFailed(f"{error}; the completions are kept; repeat the command to grade them again") from error


def figures(task: Task, graded: Sequence[Mapping[str, Any]], *, read: Sequence[bool] | None = None) -> dict[str, Any]:
    """The figures reported with the score: the task's measures, and counts of how its texts were read.

    ``read``: which texts were parsed; the others are programs that ran unchanged.
    """
    # Measures cover all texts; how texts were read (repairs, thinking) is counted only on those that a grader parsed.
    texts = list(graded) if read is None else [row for row, was in zip(graded, read, strict=True) if was]
    with error_location.faults_as(RunFailed, called=type(task)):
        measures = task_contract.reported(task, "measures", task.measures(graded))
        numbers = dict(measures) | task_contract.reported(task, "read_figures", task.read_figures(texts))
    if not task.thoughts_are_graded:
        thoughts = Counter(thought(row["text"]) for row in texts)
        closed, still_open = thoughts[Thought.CLOSED], thoughts[Thought.OPEN]
        if closed or still_open:
            numbers["thoughts"] = {"closed": closed, "never_closed": still_open}
    return numbers


def complete(
    task: Task,
    problems: Sequence[Problem],
    generator: Generator | CachedGenerator | ServerGenerator,
    decoding: Decoding,
    seed: int,
    progress: Callable[[int, int, str], None],
    look: Callable[[list[Completion]], None] = lambda window: None,
) -> list[Completion]:
    """``decoding.samples`` completions of every problem, in order. Calls ``look`` with each window of them."""
    # Work in windows of a few batches, so that progress shows, grading can begin, and the caches fill early.
    window = max(1, WINDOW * generator.batch // decoding.samples)
    completions: list[Completion] = []
    tally = TextCount(progress, len(problems) * decoding.samples)
    conversation = Conversation()
    ask = _through_lm_eval if task.asks_through_lm_eval else partial(_directly, conversation)
    # A second turn needs the answer to the first, so make one round per turn, each over all problems.
    for turn in rounds(problems):
        for start in range(0, len(turn), window):
            part = turn[start : start + window]
            latest = _each_in_its_way(ask, task, generator, part, decoding, seed, tally)
            conversation.add_answers(part, latest)
            look(latest)
            completions += latest
    return in_order(completions, problems)


def _each_in_its_way(
    ask: Callable[..., list[Completion]],
    task: Task,
    generator: Generator | CachedGenerator | ServerGenerator,
    problems: Sequence[Problem],
    decoding: Decoding,
    seed: int,
    watch: Watch,
) -> list[Completion]:
    """Completions in the order of ``problems``. Stop strings end a continuation: of a plain text, or of an answer that
    a prefill began. A chat reply ends with its turn instead, and no stop string cuts it.
    """
    ways: dict[Decoding, list[Problem]] = {}
    for problem in problems:
        way = task.decoding_for(problem, decoding)
        cut = () if way.stop and generator.begins_itself(problem.prompt) else tuple(way.stop)
        way = dataclasses.replace(way, stop=cut)
        ways.setdefault(way, []).append(problem)
    # Ask once for each way: the problems answered by a chat reply without stop strings, the others with them.
    completions = [c for way, part in ways.items() for c in ask(task, generator, part, way, seed, watch)]
    return completions if len(ways) == 1 else in_order(completions, problems)


def _directly(
    conversation: Conversation,
    task: Task,
    generator: Generator,
    problems: Sequence[Problem],
    decoding: Decoding,
    seed: int,
    watch: Watch,
) -> list[Completion]:
    from harness.types import stable_seed

    # The seed of a sample depends on its problem and number only, so batches and windows change no text.
    samples = [(p, k) for p in problems for k in range(decoding.samples)]
    texts = [generator.render(conversation.prompt(p, k)) for p, k in samples]
    seeds = [stable_seed(seed, task.name, p.id, k) for p, k in samples]
    generated = generator.generate(texts, decoding, seeds, watch)
    return [Completion(p.id, k, g.text, g.tokens, g.finish) for (p, k), g in zip(samples, generated, strict=True)]


def _through_lm_eval(*arguments: Any) -> list[Completion]:
    from harness.models import lm_eval_adapter as adapter  # takes seconds to import

    return adapter.complete(*arguments)


def rows(completions: Sequence[Completion], verdicts: Sequence[Verdict]) -> list[dict[str, Any]]:
    """One object per completion with its verdict, as records keep them; a judge's words only if there are any."""
    return [
        dataclasses.asdict(c)
        | {k: getattr(v, k) for k in ("score", "reason", "extracted", "error")}
        | ({"words": v.words} if v.words else {})
        for c, v in zip(completions, verdicts, strict=True)
    ]


def score(task: Task, graded: Sequence[Mapping[str, Any]]) -> Score:
    """The score of graded rows, as the task's metric defines it (:mod:`harness.metrics`).

    Verdicts that were not reached are counted under ``errors``. Raises RunFailed if none was reached, and with
    FILE:LINE for a metric whose value is not a number of its scale.
    """
    metric = metric_of(task)
    # A metric may be a user's: each of its numbers is checked, because a wrong one would be averaged away.
    with error_location.faults_as(RunFailed, called=type(metric)):
        counted = metric_contract.counted(metric, graded)
        problems = metric_contract.by_problem(metric, graded)
    if not problems:
        first = graded[0]["reason"] if graded else "there are no completions to grade"
        raise RunFailed(
            f"{task.title}: no verdict was reached on any of {len(graded)} completions ({first}); run again, the "
            "completions are kept"
        )
    with error_location.faults_as(RunFailed, called=type(metric)):
        value, low, high, how = metric_contract.summary(metric, list(problems.values()), RunFailed)
    counts = {
        "correct": sum(row["score"] for row in counted),
        "total": len(graded),
        "errors": sum(bool(row["error"]) for row in graded),
        "truncated": sum(row["finish"] == "length" for row in graded),
    }
    # Whole numbers as integers: "7 of 40", but "7.5 of 40" for a win rate with ties.
    if float(counts["correct"]).is_integer():
        counts["correct"] = int(counts["correct"])
    return Score(value, (low, high), how, counts, metrics.card(metric, problems))


def _answerless(task: Task, row: Mapping[str, Any]) -> bool:
    """Whether a text is blank, or the extractor of a task that ``extracts`` found nothing in it."""
    return not row["text"].strip() or (task.extracts and row["extracted"] is None and not row["error"])


def warnings_of(
    task: Task,
    graded: Sequence[Mapping[str, Any]],
    counts: Mapping[str, float],
    figures: Mapping[str, Any] = MappingProxyType({}),
) -> list[str]:
    """Warnings for readers of the score: truncation, missing answers, failed graders, repairs."""
    total = max(len(graded), 1)
    # A twentieth of the texts can move a score by five points, as much as most methods differ by.
    warnings = []
    if counts["truncated"] > 0.05 * total:
        warnings.append(f"{task.title}: {counts['truncated']} of {total} completions hit the length limit")
    silent = sum(_answerless(task, row) for row in graded)
    if silent > 0.05 * total:
        warnings.append(f"{task.title}: {silent} of {total} completions give no answer in the requested form")
    if counts["errors"]:
        warnings.append(f"{task.title}: {counts['errors']} of {total} verdicts could not be reached")
    if thoughts := figures.get("thoughts"):
        warnings.append(
            f"{task.title}: {sum(thoughts.values())} of {total} texts begin with thinking; only the text after "
            f"the last </think> (or similar) is graded; {thoughts['never_closed']} never end it and have no answer"
        )
    if touched := figures.get("texts_repaired"):
        listed = ", ".join(f"{name} {count}" for name, count in figures["repairs"].items())
        warnings.append(f"{task.title}: {touched} of {total} texts were repaired before running ({listed})")
    if theirs := figures.get("evalplus_reading"):
        warnings.append(f"{task.title}: by EvalPlus' own reading of these texts the score is {theirs['score']:.4f}")
    with error_location.faults_as(RunFailed, called=type(task)):
        remarks = task_contract.reported(task, "remarks", task.remarks(graded))
    return warnings + [f"{task.title}: {remark}" for remark in remarks]


# Tasks of several turns: a prompt that follows the model's own answer to the turn before.
#
# A problem names the one that it ``follows``. Problems are asked in rounds, first those that follow none. Before the
# prompt of a later one come the earlier question and, sample by sample, the model's answer to it, without
# thinking.


def rounds(problems: Sequence[Problem]) -> list[list[Problem]]:
    """The problems by the number of turns before them; one list if none follows another."""
    depth: dict[str, int] = {}
    for problem in problems:  # the contract of tasks puts a problem after the one that it follows
        depth[problem.id] = depth[problem.follows] + 1 if problem.follows else 0
    return [[p for p in problems if depth[p.id] == d] for d in range(max(depth.values(), default=0) + 1)]


def in_order(completions: list[Completion], problems: Sequence[Problem]) -> list[Completion]:
    """Completions in the order of the problems; those of one problem keep theirs."""
    place = {problem.id: i for i, problem in enumerate(problems)}
    return sorted(completions, key=lambda completion: place[completion.problem_id])


class Conversation:
    """The turns so far, questions and answers."""

    def __init__(self) -> None:
        self._exchanges: dict[tuple[str, int], tuple[Prompt, str]] = {}

    def prompt(self, problem: Problem, sample: int) -> Prompt:
        """The prompt for the model: the problem's prompt, after the turns that it follows."""
        if not problem.follows:
            return problem.prompt
        before, text = self._exchanges[problem.follows, sample]
        return dataclasses.replace(
            problem.prompt,
            system=before.system,
            history=(*before.history, Turn("user", before.user), Turn("assistant", text)),
            plain=f"{before.plain}{text}\n\n{problem.prompt.plain}",
        )

    def add_answers(self, problems: Sequence[Problem], completions: Sequence[Completion]) -> None:
        """Keeps the answers to ``problems``."""
        by_id = {problem.id: problem for problem in problems}
        for completion in completions:
            name, sample = completion.problem_id, completion.sample
            self._exchanges[name, sample] = self.prompt(by_id[name], sample), answer_of(completion.text)
