"""Checks what the parts of a task provide: facts, problems and every verdict.

Each function raises with FILE:LINE of the part, what it gave and what is wanted: BadInput before any work, RunFailed
for a verdict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness import error_location
from harness.errors import BadInput, RunFailed
from harness.metrics import Scale
from harness.types import Completion, Decoding, Problem, Prompt, Verdict

if TYPE_CHECKING:
    from harness.task import Task


def broken(found: type[Task], part: str, said: str) -> str:
    """FILE:LINE of a part of a task, and what is wrong with it."""
    return f"{error_location.of(found, part)}: {part} of task {found.name} {said}"


def facts(found: type[Task]) -> None:
    """Checks version, family, metric, dataset and decoding. Raises BadInput."""
    for name in ("version", "family", "metric"):
        value = getattr(found, name, None)
        if not isinstance(value, str) or not value:
            raise BadInput(broken(found, name, f"is {value!r:.60}; text is wanted, for example {_EXAMPLES[name]}"))
    dataset, decoding = getattr(found, "dataset", None), found.decoding
    if type(dataset).__name__ != "Dataset" or not all(isinstance(v, str) for v in _texts(dataset)):
        said = (
            f"is {dataset!r:.60}; dataset = Dataset(local=..., repository=..., commit=..., path=..., sha256=..., n=...)"
        )
        raise BadInput(broken(found, "dataset", f"{said} from harness.task is wanted"))
    if not isinstance(decoding, Decoding):
        raise BadInput(broken(found, "decoding", f"is {decoding!r:.60}; Decoding(max_new_tokens=...) is wanted"))
    for name, low in (("max_new_tokens", 0), ("samples", 1)):
        value = getattr(decoding, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise BadInput(broken(found, "decoding", f"says {name}={value!r}; a whole number from {low} is wanted"))
    for name, span in (("temperature", (0.0, float("inf"))), ("top_p", (0.0, 1.0))):
        value = getattr(decoding, name)
        if isinstance(value, bool) or not isinstance(value, int | float) or not span[0] <= value <= span[1]:
            wanted = f"a number in [{span[0]:g}, {span[1]:g}] is wanted"
            raise BadInput(broken(found, "decoding", f"says {name}={value!r}; {wanted}"))
    if not isinstance(decoding.stop, tuple | list) or not all(isinstance(s, str) and s for s in decoding.stop):
        raise BadInput(broken(found, "decoding", f"says stop={decoding.stop!r:.60}; a tuple of texts is wanted"))


_EXAMPLES = {"version": '"1"', "family": '"maths"', "metric": '"accuracy"'}


def _texts(dataset: Any) -> list[Any]:
    return [getattr(dataset, name, None) for name in ("local", "repository", "commit", "path", "sha256")]


def problems(task: Task, found: Any) -> None:
    """Checks for a non-empty list of valid problems with unique ids. Raises BadInput."""

    def wrong(said: str) -> BadInput:
        return BadInput(broken(type(task), "problems", said))

    if not isinstance(found, list | tuple):
        raise wrong(f"gave {error_location.describe(found)}; a list of harness.types.Problem is wanted")
    if not found:
        if not task.data.rows:
            raise BadInput(f"task {task.name}: its data ({task.data.source}) has no rows")
        raise wrong(f"gave no problem for {len(task.data.rows)} rows; one per row is wanted")
    ids: set[str] = set()
    for i, problem in enumerate(found):
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
        asked = problem.prompt
        if not isinstance(asked, Prompt):
            raise wrong(
                f"gave problem {problem.id!r:.60} the prompt {asked!r:.60}; Prompt(user=..., plain=...) is wanted"
            )
        for name in ("user", "plain") if asked.chat else ("plain",):
            text = getattr(asked, name)
            if not isinstance(text, str) or not text.strip():
                raise wrong(f"gave problem {problem.id!r:.60} a prompt whose {name} is {text!r:.60}; text is wanted")


def verdict(task: Task, part: str, found: Any, of: Completion, scale: Scale) -> None:
    """Checks for a verdict on the given completion with a score on ``scale``, or 0 with an error. Raises RunFailed."""

    def wrong(said: str) -> RunFailed:
        wanted = f"Verdict(problem.id, 0, score from {scale.low:g} to {scale.high:g}, reason) is wanted"
        return RunFailed(broken(type(task), part, f"{said}; {wanted}"))

    if not isinstance(found, Verdict):
        raise wrong(f"gave {error_location.describe(found)} on problem {of.problem_id!r}")
    if found.problem_id != of.problem_id:
        raise wrong(f"gave a verdict on problem {found.problem_id!r:.60} when asked about {of.problem_id!r}")
    score = found.score
    if isinstance(score, bool):
        raise wrong(f"gave the score {score} on problem {of.problem_id!r}: write float(right)")
    if not scale.holds(score) and not (found.error and score == 0):
        raise wrong(f"gave the score {score!r:.60} on problem {of.problem_id!r}")
    if not isinstance(found.reason, str) or not isinstance(found.extracted, str | None):
        raise wrong(f"gave a reason or extracted answer that is no text on problem {of.problem_id!r}")
