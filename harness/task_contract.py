"""Checks what the parts of a task provide: facts, problems and every verdict.

Each function raises with FILE:LINE of the part, its value and the expected one: BadInput before any work, RunFailed
for a verdict. The checks take any class as a task, because :mod:`harness.task` imports them.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from harness import error_location
from harness.contract_checks import unrecordable
from harness.error_location import describe, short
from harness.errors import BadInput, RunFailed
from harness.metrics import Scale
from harness.types import Completion, Decoding, Problem, Prompt, Verdict

LONGEST_ID, LONGEST = 1000, 1_000_000  # characters of an id, and of a reason or an extracted answer


def broken(task_class: type[Any], part: str, fault: str) -> str:
    """FILE:LINE of a part of a task, and what is wrong with it."""
    return f"{error_location.of(task_class, part)}: {part} of task {task_class.name} {fault}"


def facts(task_class: type[Any]) -> None:
    """Checks version, family, metric, dataset and decoding. Raises BadInput."""
    for name in ("version", "family", "metric"):
        value = getattr(task_class, name, None)
        if not isinstance(value, str) or not value:
            raise BadInput(broken(task_class, name, f"is {value!r:.60}; text is wanted, for example {_EXAMPLES[name]}"))
        if len(value) > 60 or not value.isprintable():
            raise BadInput(broken(task_class, name, f"is {value!r:.60}; up to 60 printable characters are wanted"))
    dataset, decoding = getattr(task_class, "dataset", None), task_class.decoding
    if type(dataset).__name__ != "Dataset" or not all(isinstance(v, str) for v in _texts(dataset)):
        fault = (
            f"is {dataset!r:.60}; dataset = Dataset(local=..., repository=..., commit=..., path=..., sha256=..., n=...)"
        )
        raise BadInput(broken(task_class, "dataset", f"{fault} from harness.task is wanted"))
    if isinstance(dataset.n, bool) or not isinstance(dataset.n, int) or dataset.n < 0:
        raise BadInput(broken(task_class, "dataset", f"says n={short(dataset.n)}; the number of its rows is wanted"))
    for name in _TEXTS:
        if not isinstance(getattr(task_class, name), str):
            raise BadInput(broken(task_class, name, f"is {short(getattr(task_class, name))}; text is wanted"))
    for name in _MARKS:
        if not isinstance(getattr(task_class, name), bool):
            raise BadInput(
                broken(task_class, name, f"is {short(getattr(task_class, name))}, which is not True or False")
            )
    if task_class.measures_itself and task_class.measure.__module__ == "harness.task":
        raise BadInput(
            broken(task_class, "measures_itself", "is True; add a method measure(self, generator, limit, seed)")
        )
    _protocols(task_class)
    _decoding(task_class, "decoding", decoding)


_TEXTS = ("grader", "paper", "licence", "note", "known_wrong", "samples_as", "extractor", "equivalence")
_MARKS = (
    "takes_some",
    "needs_judge",
    "needs_rating",
    "asks_through_lm_eval",
    "runs_programs",
    "extracts",
    "grades_aside",
)
_MARKS += ("thoughts_are_graded", "measures_itself")


def _protocols(task_class: type[Any]) -> None:
    """Checks the published protocols: names valid on a command line, and their changes."""
    protocols = task_class.protocols
    if not isinstance(protocols, Mapping):
        raise BadInput(
            broken(task_class, "protocols", f"is {describe(protocols)}; a dict of names and Protocols is wanted")
        )
    for name, protocol in protocols.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,59}", name, re.ASCII):
            raise BadInput(
                broken(task_class, "protocols", f"has the name {short(name)}; letters, digits and _ . - are wanted")
            )
        if type(protocol).__name__ != "Protocol" or not isinstance(protocol.changes, Mapping):
            fault = f"gives {name} {describe(protocol)}; Protocol(about, changes) from harness.task is wanted"
            raise BadInput(broken(task_class, "protocols", fault))
        if "decoding" in protocol.changes:
            _decoding(task_class, "protocols", protocol.changes["decoding"])
    if task_class.protocol is not None and task_class.protocol not in protocols:
        raise BadInput(
            broken(task_class, "protocol", f"is {short(task_class.protocol)}; the harness sets it: leave it out")
        )


def _decoding(task_class: type[Any], part: str, decoding: Any) -> None:
    """Checks the decoding in ``part`` of a task."""
    if not isinstance(decoding, Decoding):
        raise BadInput(broken(task_class, part, f"is {short(decoding)}; Decoding(max_new_tokens=...) is wanted"))
    for name, low in (("max_new_tokens", 0), ("samples", 1)):
        value = getattr(decoding, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise BadInput(broken(task_class, part, f"says {name}={short(value)}; a whole number from {low} is wanted"))
    for name, value in (("temperature", decoding.temperature), ("top_p", decoding.top_p)):
        right = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not right or value < 0 or (name == "top_p" and not 0 < value <= 1):
            wanted = "a number in (0, 1]" if name == "top_p" else "a number from 0"
            raise BadInput(broken(task_class, part, f"says {name}={short(value)}; {wanted} is wanted"))
    if not isinstance(decoding.stop, tuple | list) or not all(isinstance(s, str) and s for s in decoding.stop):
        raise BadInput(broken(task_class, part, f"says stop={decoding.stop!r:.60}; a tuple of texts is wanted"))


ROWS_WANTED = "expected one per row, unless the task says takes_some = True"
_EXAMPLES = {"version": '"1"', "family": '"maths"', "metric": '"accuracy"'}


def _texts(dataset: Any) -> list[Any]:
    return [getattr(dataset, name, None) for name in ("local", "repository", "commit", "path", "sha256")]


def problems(task: Any, result: Any) -> None:
    """Checks for a non-empty list of valid problems with unique ids. Raises BadInput."""

    def wrong(fault: str) -> BadInput:
        return BadInput(broken(type(task), "problems", fault))

    if not isinstance(result, list | tuple):
        raise wrong(f"gave {error_location.describe(result)}; a list of harness.types.Problem is wanted")
    if not result:
        if not task.data.rows:
            raise BadInput(f"task {task.name}: its data ({task.data.source}) has no rows")
        raise wrong(f"gave no problem for {len(task.data.rows)} rows; {ROWS_WANTED}")
    ids: set[str] = set()
    for i, problem in enumerate(result):
        if not isinstance(problem, Problem):
            raise wrong(f"gave {error_location.describe(problem)} at place {i}; a harness.types.Problem is wanted")
        if not isinstance(problem.id, str) or not problem.id:
            raise wrong(f"gave a problem whose id is {problem.id!r:.60}; text is wanted: str(...)")
        if problem.id in ids:
            raise wrong(f"gave two problems of id {problem.id!r:.60}; each needs its own, for example str(i)")
        if problem.follows and problem.follows not in ids:
            raise wrong(f"gave problem {problem.id!r:.60} before {problem.follows!r:.60}, which it follows; swap them")
        if problem.follows and (task.asks_through_lm_eval or task.grades_aside):
            raise wrong("gave turns that follow others; asks_through_lm_eval and grades_aside must be False for them")
        ids.add(problem.id)
        texts = vars(problem.prompt).values() if isinstance(problem.prompt, Prompt) else ()
        if any(_half(text) for text in (problem.id, *texts) if isinstance(text, str)):
            fault = "contains half a character (a lone surrogate), which no model can read; remove it from the data"
            raise wrong(f"gave problem {problem.id!r:.60} an id or a prompt that {fault}")
        if not isinstance(problem.follows, str):
            raise wrong(
                f"gave problem {problem.id!r:.60} follows={short(problem.follows)}; the id of another is wanted"
            )
        if len(problem.id) > LONGEST_ID:
            raise wrong(f"gave a problem an id of {len(problem.id):,} characters; at most {LONGEST_ID:,} are wanted")
        _prompt(wrong, problem)


def prompts(task: Any) -> None:
    """Checks the prompts from ``ask``. Raises BadInput."""
    for problem in task.items:
        _prompt(lambda fault: BadInput(broken(type(task), "ask", fault)), problem)


def _prompt(wrong: Callable[[str], BadInput], problem: Problem) -> None:
    prompt = problem.prompt
    if not isinstance(prompt, Prompt):
        raise wrong(f"gave problem {problem.id!r:.60} the prompt {prompt!r:.60}; Prompt(user=..., plain=...) is wanted")
    for name in ("user", "plain") if prompt.chat else ("plain",):
        text = getattr(prompt, name)
        if not isinstance(text, str) or not text.strip():
            raise wrong(f"gave problem {problem.id!r:.60} a prompt whose {name} is {short(text)}; text is wanted")
    odd = [name for name in ("system", "prefill") if not isinstance(getattr(prompt, name), str | None)]
    if odd or prompt.prefill is None or not isinstance(prompt.history, tuple | list):
        fault = f"a prompt whose {(odd or ['prefill or history'])[0]} is not text, or not a tuple of turns"
        raise wrong(f"gave problem {problem.id!r:.60} {fault}")


def _half(text: str) -> bool:
    """Whether a text contains a lone surrogate, which is not a character and cannot be encoded."""
    return not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)


def verdict(task: Any, part: str, result: Any, of: Completion, scale: Scale) -> None:
    """Checks for a verdict on the given completion with a score on ``scale``, or 0 with an error. Raises RunFailed."""

    def wrong(fault: str) -> RunFailed:
        wanted = f"Verdict(problem.id, 0, score from {scale.low:g} to {scale.high:g}, reason) is wanted"
        return RunFailed(broken(type(task), part, f"{fault}; {wanted}"))

    if not isinstance(result, Verdict):
        raise wrong(f"gave {error_location.describe(result)} on problem {of.problem_id!r}")
    if result.problem_id != of.problem_id:
        raise wrong(f"gave a verdict on problem {result.problem_id!r:.60} when asked about {of.problem_id!r}")
    score = result.score
    if not isinstance(result.error, bool) or (result.error and score != 0):
        raise wrong(f"gave error={short(result.error)} with the score {short(score)} on problem {of.problem_id!r}")
    if isinstance(score, bool):
        raise wrong(f"gave the score {score} on problem {of.problem_id!r}: write float(right)")
    if not scale.holds(score) and not (result.error and score == 0):
        raise wrong(f"gave the score {short(score)} on problem {of.problem_id!r}")
    if not isinstance(result.reason, str) or not isinstance(result.extracted, str | None):
        raise wrong(f"gave a reason or extracted answer that is not text on problem {of.problem_id!r}")
    for name, text in (("reason", result.reason), ("extracted answer", result.extracted or "")):
        if len(text) > LONGEST:
            fault = (
                f"gave a{'n' * (name[0] in 'aeiou')} {name} of {len(text):,} characters on problem {of.problem_id!r}"
            )
            raise RunFailed(broken(type(task), part, f"{fault}; at most {LONGEST:,} are kept"))


def answers(task: Any) -> None:
    """Checks the rest of a task before any work: its title, its grader's identity, the decoding of each problem.

    Raises BadInput.
    """
    task_class = type(task)

    def wrong(part: str, fault: str) -> BadInput:
        return BadInput(broken(task_class, part, fault))

    title = task.title
    if not isinstance(title, str) or not re.fullmatch(r"[A-Za-z0-9][\w.@:+-]{0,79}", title, re.ASCII):
        raise wrong("title", f"is {short(title)}; leave it to the harness: it is the name and the world")
    identity = task.grader_identity()
    if not isinstance(identity, dict) or unrecordable(identity):
        fault = unrecordable(identity) if isinstance(identity, dict) else f"is {describe(identity)}; a dict is wanted"
        raise wrong("grader_identity", fault)
    if task.grader_identity() != identity:
        raise wrong("grader_identity", "changes from call to call; scores would never compare")
    for problem in task.items[:20]:
        decoding = task.decoding_for(problem, task.decoding)
        _decoding(task_class, "decoding_for", decoding)
        if decoding.samples != task.decoding.samples:
            raise wrong("decoding_for", f"asks for {decoding.samples} samples of one problem; all have the same number")


def made(task_class: type[Any], rows: Any, judge: Any) -> Any:
    """The task on its rows, checked. Raises BadInput with FILE:LINE for an incomplete ``__init__`` or part."""
    with error_location.faults_as(BadInput, called=task_class):
        task = task_class(rows, judge)
        if not {"data", "items"} <= vars(task).keys():
            raise BadInput(broken(task_class, "__init__", "leaves out super().__init__(data, judge)"))
        answers(task)
    return task


def afterwards(task: Any, completions: Sequence[Completion], verdicts: Sequence[Verdict]) -> None:
    """Checks a task's reports on graded texts early, not only after all grading. Raises as :func:`reported`."""
    kept = ("score", "reason", "extracted", "error")
    rows = [
        dataclasses.asdict(c) | {name: getattr(v, name) for name in kept}
        for c, v in zip(completions, verdicts, strict=True)
    ]
    for part in ("measures", "read_figures", "remarks"):
        reported(task, part, getattr(task, part)(rows))
    for problem in task.items[:5] if hasattr(task, "gold_completion") else ():
        right = task.gold_completion(problem)
        if not isinstance(right, str | None):
            fault = (
                f"gave {describe(right)} for problem {problem.id!r:.60}; the text of a right answer is wanted, or None"
            )
            raise RunFailed(broken(type(task), "gold_completion", fault))


def measured(task: Any, result: Any) -> tuple[list[dict[str, Any]], str]:
    """The result of ``measure``, if it is graded rows and the first prompt. Raises RunFailed otherwise."""
    if isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], list) and isinstance(result[1], str):
        return result
    fault = f"gave {describe(result)}; a tuple of graded rows and the first prompt is wanted"
    raise RunFailed(broken(type(task), "measure", fault))


def reported(task: Any, part: str, result: Any) -> Any:
    """The result of ``measures``, ``read_figures`` or ``remarks``, if a record can keep it; else raises RunFailed."""
    wanted = list if part == "remarks" else dict
    if not isinstance(result, Mapping if wanted is dict else list | tuple):
        fault = f"gave {describe(result)}; a {wanted.__name__} is wanted"
    elif part == "remarks" and not all(isinstance(line, str) for line in result):
        fault = "gave a list that holds something else than text"
    else:
        fault = unrecordable(result) and f"gave a {wanted.__name__} that {unrecordable(result)}"
    if fault:
        raise RunFailed(broken(type(task), part, fault))
    return result
