"""``--resume ID``: whether a command asks for the very training that was interrupted, and if not, in what it differs.

The same command goes on by itself. This is for someone who wants to be told when it is not the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness.errors import BadInput
from harness.evaluation import measurement
from harness.records import interrupted

if TYPE_CHECKING:
    from harness.plan import Plan, TrainingRun

SHOWN = 4  # differences in one line
SETTABLE = ("training", "rollout", "teacher_text", "method")  # sections of --set


def check(plan: Plan, wanted: str) -> None:
    """Raises BadInput unless the plan includes the training, or the run, that is called ``wanted``."""
    found = interrupted.find(wanted, plan.request.results)
    mine = [t for t in plan.trainings if t.training_id == found.training_id]
    if mine:
        if found.task is not None:
            _same_measurement(plan, mine[0], found)
        return
    if found.spec is None:
        raise BadInput(f"--resume {wanted}: what it was begun with cannot be read; give that command without --resume")
    compared = [(list(_differences(found.spec, t.spec)), t) for t in plan.trainings]
    differing, _ = min(compared, key=lambda pair: (any(k == "method.name" for k, *_ in pair[0]), len(pair[0])))
    said = [f"{key} is {_short(there)} there, {_short(here)} here" for key, there, here in differing]
    mends = list(dict.fromkeys(_mend(key, there, found.spec) for key, there, _ in differing))
    raise _refusal(wanted, said, mends)


def _same_measurement(plan: Plan, training: TrainingRun, found: interrupted.Interrupted) -> None:
    """Of a run also the task and the protocol must be asked for."""
    task = next((task for task in plan.tasks if task.title == found.task), None)
    if task is None:
        asked = ", ".join(t.title for t in plan.tasks)
        raise _refusal(found.id, [f"task is {found.task} there, {asked} here"], [f"--task {found.task}"])
    protocol = measurement.of(plan, training, task).protocol
    parts = [{k: v for k, v in p.items() if k not in ("name", "card")} for p in (found.protocol, protocol)]
    differing = list(leaves(*json.loads(json.dumps(parts))))
    if differing:
        said = [f"{key} of {found.task} is {_short(a)} there, {_short(b)} here" for key, a, b in differing]
        raise _refusal(found.id, said, ["the evaluation settings it was begun with"])


def _refusal(wanted: str, said: list[str], mends: list[str]) -> BadInput:
    more = f", and {len(said) - SHOWN} more" if len(said) > SHOWN else ""
    words = " ".join(m for m in mends if m.startswith("--"))
    mend = " and ".join([w for w in (words,) if w] + [m for m in mends if not m.startswith("--")])
    return BadInput(
        f"--resume {wanted} is not what this command asks for: {', '.join(said[:SHOWN])}{more}; "
        f"give {mend} to go on with it, or leave --resume out"
    )


def _differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """(key as a user writes it, there, here). Of another method only its name: the rest follows from it."""
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
    """A value in a few letters; of a model its name and the beginning of its hash."""
    if isinstance(value, dict) and "sha256" in value:
        return f"{value.get('id')} ({value['sha256'][:8]})"
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 40 else f"{text[:12]}…"


def _mend(key: str, there: Any, spec: Mapping[str, Any]) -> str:
    """The word of the command line that asks for what was asked for there."""
    if key == "method.name":
        variant = spec["method"].get("variant")
        return f"--method {there}@{variant}" if variant else f"--method {there}"
    if key == "seed":
        return f"--seed {there}"
    if key in ("student", "teacher") and there is not None:
        return f"--{key} {there['id']}"
    section, dot, _ = key.partition(".")
    if dot and section in SETTABLE and key != "method.origin" and isinstance(there, int | float | str):
        return f"--set {key}={json.dumps(there) if not isinstance(there, str) else there}"
    if key == "loop":
        return "the version of the harness it was begun with"
    return f"the {key} it was begun with"
