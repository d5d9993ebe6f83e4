"""Families of fuzzed input besides completions, each with its own promise.

    python -m results.scripts.grading.fuzz --of notations --n 5000 --seed 0

A family is a function ``trials(n, seed)`` that yields ``n`` :class:`Trial`: what was tried, the outcome, and the
fault, if a promise was broken. The ``i``-th trial depends on ``seed`` and ``i`` alone. A new family is a module with
this function and a line in :data:`FAMILIES`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module

from harness.errors import BadInput

FAMILIES = {
    "notations": "results.scripts.grading.fuzz_notations",
    "files": "results.scripts.grading.fuzz_files",
    "mistakes": "results.scripts.grading.fuzz_mistakes",
    "judges": "results.scripts.grading.fuzz_judges",
    "records": "results.scripts.grading.fuzz_records",
    "values": "results.scripts.grading.fuzz_values",
}
FAULTS_SHOWN = 200  # of each page


@dataclass(frozen=True)
class Trial:
    """``kind``: what was done. ``outcome``: the result. ``fault``: the broken promise, "" where none was.

    ``note`` describes a trial whose outcome could be better but breaks no promise.
    """

    kind: str
    outcome: str
    fault: str = ""
    note: str = ""


def trials(family: str, n: int, seed: int) -> Iterator[Trial]:
    """The trials of a family. Raises BadInput where it cannot run here."""
    if family not in FAMILIES:
        raise BadInput(f"no fuzz family {family!r}; there are {', '.join(FAMILIES)}")
    return import_module(FAMILIES[family]).trials(n, seed)


def page(family: str, n: int, seed: int, progress: Callable[[int], None] = lambda done: None) -> tuple[str, int]:
    """Runs the trials: a Markdown page of the outcomes, and the number of faults."""
    outcomes: Counter[tuple[str, str]] = Counter()
    faults, notes = [], []
    for done, trial in enumerate(trials(family, n, seed), 1):
        outcomes[trial.kind, trial.outcome] += 1
        faults += [f"{trial.kind}: {trial.fault}"] if trial.fault else []
        notes += [f"{trial.kind}: {trial.note}"] if trial.note else []
        progress(done)
    lines = [
        f"# {sum(outcomes.values()):,} trials of {family}",
        "",
        f"`python -m results.scripts.grading.fuzz --of {family} --n {n} --seed {seed}`: {len(faults)} faults.",
        "",
        "| kind | outcome | trials |",
        "|---|---|---:|",
        *(f"| {kind} | {outcome} | {count:,} |" for (kind, outcome), count in sorted(outcomes.items())),
    ]
    for title, listed in (("Faults", faults), ("No faults, but worth a look", notes)):
        if listed:
            more = [f"and {len(listed) - FAULTS_SHOWN} more"] if len(listed) > FAULTS_SHOWN else []
            lines += ["", f"{title}:", "", "```text", *(f[:300] for f in listed[:FAULTS_SHOWN]), *more, "```"]
    return "\n".join(lines), len(faults)
