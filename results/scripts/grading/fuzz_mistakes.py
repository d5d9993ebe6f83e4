"""People's own methods and tasks with one or two mistakes, read as ``harness check --method`` and ``--task`` read them.

Promises: a mistake is refused in one printable line with FILE:LINE, nothing else is raised, the process is as it was,
and a file with harmless changes alone conforms.
"""

from __future__ import annotations

import contextlib
import io
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

from harness import registry, testing
from harness.contract_checks import ProcessState
from harness.errors import BadInput
from harness.evaluation.benchmarks import locate
from results.scripts.grading.fuzz_families import Trial
from results.scripts.grading.mistakes import HARMLESS, METHOD, MISTAKES, ROWS, TASK, Mistake

LONGEST = 1000  # characters of an answer
_PLACE = re.compile(r"^[^ ]*own_\d+\.py(:\d+)?: ")


def trials(n: int, seed: int) -> Iterator[Trial]:
    with tempfile.TemporaryDirectory() as folder:
        for i in range(n):
            rng = Random(f"{seed}/{i}")
            kind = rng.choice(["one mistake", "two mistakes", "a mistake among harmless changes", "harmless changes"])
            first = rng.choice(MISTAKES)
            same = [m for m in MISTAKES if m.kind == first.kind]
            harmless = [m for m in HARMLESS if m.kind == first.kind]
            drawn = {
                "one mistake": [first],
                "two mistakes": [first, rng.choice(same)],
                "a mistake among harmless changes": [first, rng.choice(harmless), rng.choice(harmless)],
                "harmless changes": rng.sample(harmless, 2),
            }[kind]
            answer, fault = tried(first.kind, drawn, Path(folder) / f"own_{i}.py")
            wrong = kind != "harmless changes"
            if not fault and bool(answer) != wrong:
                fault = "conforms" if wrong else f"is refused: {answer}"
            made = " and ".join(repr(m.new.strip()[:60]) for m in drawn)
            yield Trial(
                f"{first.kind}: {kind}",
                "refused" if answer else "conforms",
                fault=f"{fault[:200]}: {made} (trial {i})" if fault else "",
            )


def tried(kind: str, changes: list[Mistake], path: Path) -> tuple[str, str]:
    """How a file with these changes is refused, "" where it conforms; and the promise that this broke."""
    text = METHOD if kind == "method" else TASK
    for change in changes:
        text = change.made(text)
    path.write_text(text, "utf-8", "surrogatepass")
    before, answer, fault = ProcessState(), "", ""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            if kind == "method":
                testing.check_method(registry.find(registry.METHODS, str(path)))
            else:
                testing.check_task(locate(str(path))[0], ROWS)
    except (BadInput, AssertionError) as error:
        answer = str(error)
        odd = len(answer) > LONGEST or not " ".join(answer.split()).isprintable()
        fault = "is answered in odd words" if odd else ""
        if not odd and not _PLACE.match(answer):
            fault = f"is answered without a place: {answer}"
    except BaseException as error:  # any other is a fault
        answer, fault = "raised", f"raises {type(error).__name__}: {error}"
    return answer, fault or (f"leaves the process changed ({left[0]})" if (left := before.changed()) else "")
