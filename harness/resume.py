"""``--resume ID``: checks that a command continues the given training, and names the differences if not.

Repeating a command resumes it anyway; with this option, a different command is refused instead of starting over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput
from harness.evaluation import measurement
from harness.records import work_folder

if TYPE_CHECKING:
    from harness.request import Plan
    from harness.training.job import TrainingRun

SHOWN = 4  # differences in one message
SETTABLE = ("training", "rollout", "teacher_text", "method", "student", "teacher")  # sections of --set


def check(plan: Plan, name: str) -> None:
    """Raises BadInput unless the plan includes the training or run with the id ``name``."""
    interrupted = work_folder.find_interrupted(name, plan.request.results)
    mine = [t for t in plan.stages if t.training_id == interrupted.training_id]
    if mine:
        if interrupted.task is not None:
            _same_measurement(plan, mine[0], interrupted)
        return
    if interrupted.spec is None:
        raise BadInput(f"--resume {name}: its settings cannot be read; give its command without --resume")
    # Report against the most similar training of the plan: one of the same method, with the fewest differences.
    compared = [(list(_differences(interrupted.spec, t.spec)), t) for t in plan.trainings]
    differing, _ = min(compared, key=lambda pair: (any(k == "method.name" for k, *_ in pair[0]), len(pair[0])))
    differences = [f"{key} is {_short(there)} there, {_short(here)} here" for key, there, here in differing]
    fixes = list(dict.fromkeys(_option(key, there, interrupted.spec) for key, there, _ in differing))
    raise _refusal(name, differences, fixes)


def _same_measurement(plan: Plan, training: TrainingRun, interrupted: work_folder.Interrupted) -> None:
    """Raises BadInput unless the plan includes the task and the protocol of an interrupted run."""
    task = next((task for task in plan.tasks if task.title == interrupted.task), None)
    if task is None:
        titles = ", ".join(t.title for t in plan.tasks)
        raise _refusal(
            interrupted.id, [f"task is {interrupted.task} there, {titles} here"], [f"--task {interrupted.task}"]
        )
    protocol = measurement.of(plan, training, task).protocol
    parts = [{k: v for k, v in p.items() if k not in ("name", "card")} for p in (interrupted.protocol, protocol)]
    differing = list(leaves(*json.loads(json.dumps(parts))))
    if differing:
        differences = [f"{key} of {interrupted.task} is {_short(a)} there, {_short(b)} here" for key, a, b in differing]
        raise _refusal(interrupted.id, differences, ["the evaluation settings it was started with"])


def _refusal(name: str, differences: list[str], fixes: list[str]) -> BadInput:
    more = f", and {len(differences) - SHOWN} more" if len(differences) > SHOWN else ""
    options = " ".join(m for m in fixes if m.startswith("--"))
    fix = " and ".join([w for w in (options,) if w] + [m for m in fixes if not m.startswith("--")])
    return BadInput(
        f"--resume {name} differs from this command: {', '.join(differences[:SHOWN])}{more}; "
        f"give {fix} to continue it, or remove --resume"
    )


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(key as a user writes it, there, here). For another method only its name, because the rest follows."""
    there, here = (json.loads(json.dumps(spec)) for spec in (there, here))  # tuples are lists in the file
    a, b = there.get("method", {}), here["method"]
    keys = ("name", "origin") if a.get("name") == b["name"] else ("name",)
    yield from ((f"method.{k}", a.get(k), b.get(k)) for k in keys if a.get(k) != b.get(k))
    if len(keys) > 1:
        yield from leaves(a.get("settings", {}), b.get("settings", {}), "method.")
    for key in ("student", "teacher"):
        if there.get(key) != here.get(key) and (key == "student" or len(keys) > 1):
            yield key, there.get(key), here.get(key)
    if there.get("seed") != here.get("seed"):
        yield "seed", there.get("seed"), here.get("seed")
    if len(keys) > 1:
        rest = {"method", "student", "teacher", "seed"}
        yield from leaves(*({k: v for k, v in spec.items() if k not in rest} for spec in (there, here)))


def leaves(there: Any, here: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, there, here) of every value in which two nested mappings differ."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys()):
            yield from leaves(there.get(key), here.get(key), f"{path}{key}.")
    elif there != here:
        yield path.removesuffix("."), there, here


def _short(value: Any) -> str:
    """A value, shortened; for a model its name and the first digits of its hash."""
    if isinstance(value, dict) and "sha256" in value:
        return f"{value.get('id')} ({value['sha256'][:8]})"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def _option(key: str, there: Any, spec: Mapping[str, Any]) -> str:
    """The command-line option that sets ``key`` as in the interrupted run."""
    if key == "method.name":
        variant = spec["method"].get("variant")
        return f"--method {there}@{variant}" if variant else f"--method {there}"
    if key == "seed":
        return f"--seed {there}"
    if key in ("student", "teacher") and there is not None:
        return f"--{key} {there['id']}"
    for part, section in (("adapter.", "student."), ("teacher_loading.", "teacher.")):
        key = section + key.removeprefix(part) if key.startswith(part) else key
    section, dot, _ = key.partition(".")
    if dot and section in SETTABLE and key != "method.origin" and isinstance(there, int | float | str):
        return f"--set {key}={json.dumps(there) if not isinstance(there, str) else there}"
    if key == "loop":
        return "the version of the harness it was started with"
    return f"the {key} it was started with"
