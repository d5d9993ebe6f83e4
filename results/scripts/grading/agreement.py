"""Compares our grades with the libraries' own on golds and on programs known to be wrong; explains every difference.

    python -m results.scripts.grading.agreement > results/grading/GRADERS.md    needs HARNESS_DATA and the libraries
    python -m results.scripts.grading.agreement --code mbppplus --every 8       only these rows, every eighth problem

EvalPlus runs programs without a sandbox: it gets only canonical programs and harmless wrong ones here.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from harness.data import parse
from harness.errors import BadInput
from harness.evaluation import published_verdicts
from harness.evaluation.benchmarks import locate, open_task
from harness.evaluation.known_answers import EQUALS_ALL
from harness.task import Task
from harness.types import Completion
from results.scripts.grading.peer_graders import bare, evalplus, evalplus_on_its_data, strings, wrapped

SHOWN = 12  # ids of a difference
FORGED = 20  # problems on which the forged programs are tried
PATIENT_S = 60.0  # a floor of EvalPlus' time limits that this machine's load does not reach

SETS_THE_RESULT = """import os
import sys


def {name}(*args, **kwargs):
    frame = sys._getframe()
    while frame is not None:
        held = frame.f_locals
        if "stat" in held and "details" in held:
            held["details"][:] = [True] * len(held["details"])
            held["progress"].value = len(held["details"])
            held["stat"].value = 0
            os._exit(0)
        frame = frame.f_back
"""
RETURNS_NONE = "def {name}(*args, **kwargs):\n    return None\n"


def report() -> Iterator[str]:
    """The page, line by line. Raises BadInput where data is missing."""
    if not any(OUTPUTS.glob("*.jsonl*")):
        raise BadInput(f"no completions below {OUTPUTS.parent}: run this in a checkout of the repository")
    names = ("math-verify", "lm-eval", "evalplus", "alpaca-eval")
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in names)
    yield from (
        "# Our grades against the libraries' own",
        "",
        f"Made by `python -m results.scripts.grading.agreement` on the pinned benchmark files, with {versions}.",
        "Golds are reference answers, to be accepted; wrong programs, to be refused. Differences are explained below",
        "its table. `harness check` grades the same known answers, and more, with our graders alone.",
        "",
    )
    yield from _maths()
    yield from _code()
    yield from _outputs()
    yield from _judged()


# -- maths -----------------------------------------------------------------------------------------------------

MATHS = {  # task -> the field of its file that a library is given as the gold
    "amc23": "answer",
    "aime24": "answer",
    "olympiadbench": "final_answer",
    "math500": "answer",
    "gsm8k": "answer",
}


def _maths() -> Iterator[str]:
    yield from (
        "## Maths: golds in a box",
        "",
        "| task | ours | math-verify, wrapped in `$…$` | math-verify, bare | strings (lm-eval's `aime`) |",
        "|---|---|---|---|---|",
    )
    differences = []
    for name, field in MATHS.items():
        task = open_task(name)
        n = len(task.items)
        written = [_written(name, problem.reference.text) for problem in task.items]
        golds = [_raw_gold(name, row[field]) for row in task.data.rows]
        verdicts = task.grade_all([_completion(p.id, text) for p, text in zip(task.items, written, strict=True)])
        wrong = {"ours": [v.problem_id for v in verdicts if v.score < 1]}
        for column, grade in (("wrapped", wrapped), ("bare", bare), ("strings", strings)):
            right = [grade(gold, text) for gold, text in zip(golds, written, strict=True)]
            wrong[column] = [p.id for p, ok in zip(task.items, right, strict=True) if not ok]
        yield f"| {name} | " + " | ".join(f"{n - len(ids)}/{n}" for ids in wrong.values()) + " |"
        differences += [f"- {name}, {column}: {_ids(ids)}." for column, ids in wrong.items() if ids]
    yield from ("", "Golds that are not recognised:", "", *differences, "", MATHS_WHY, "")


MATHS_WHY = r"""Why:

- amc23, strings: the file holds floats (`27.0`), and a model writes 27.
- aime24, strings: seven golds have leading zeros (`033`), and a model writes 33.
- gsm8k, strings: the file writes `1,000` where a model may write 1000.
- olympiadbench, wrapped: three malformed golds, which we read as repaired (`tasks/olympiadbench.py` has them all).
- olympiadbench and math500, bare: LaTeX that stands in no mathematical environment, so that math-verify takes the
  first number in it, or nothing, for the gold.
- olympiadbench, strings: the golds stand between dollar signs, and the content of a model's box does not."""


def _written(name: str, gold: str) -> str:
    number = str(int(gold)) if name == "aime24" else gold  # a model writes 33, not 033
    return f"The answer is $\\boxed{{{number}}}$."


def _raw_gold(name: str, value: Any) -> str:
    value = value[0] if isinstance(value, list) else value
    return value.rpartition("####")[2].strip() if name == "gsm8k" else str(value)


def _completion(problem_id: str, text: str) -> Completion:
    return Completion(problem_id, 0, text, 0, "stop")


# -- code ------------------------------------------------------------------------------------------------------


CODE = {"humaneval": "humaneval", "humanevalplus": "humaneval", "mbpp": "mbpp", "mbppplus": "mbpp"}


def _code(names: Sequence[str] = tuple(CODE), every: int = 1) -> Iterator[str]:
    yield from (
        "## Code: canonical solutions and wrong programs",
        "",
        f"Passed, of the programs given. EvalPlus ran twice: as released, and with a floor of {PATIENT_S:g} s for its",
        "wall-clock limits wherever it disagreed. Forgeries were tried on the first "
        f"{FORGED} problems of each benchmark.",
        "",
        "| task | programs | ours | EvalPlus | EvalPlus, patient | only ours passes | only EvalPlus passes |",
        "|---|---|---|---|---|---|---|",
    )
    for name in names:
        task = open_task(name)
        peer = evalplus_on_its_data(CODE[name], task.plus, every)
        for kind, ids, program in _programs(task, every):
            programs = [program(task, key) for key in ids]
            verdicts = task.grade_programs([_completion(key, "") for key in ids], programs)
            ours = {v.problem_id: v.score == 1 for v in verdicts}
            theirs = {key: peer(key, text, None) for key, text in zip(ids, programs, strict=True)}
            patient = {
                key: theirs[key] if theirs[key] == ours[key] else peer(key, text, PATIENT_S)
                for key, text in zip(ids, programs, strict=True)
            }
            only_ours = [key for key in ids if ours[key] and not patient[key]]
            only_theirs = [key for key in ids if patient[key] and not ours[key]]
            counts = " | ".join(f"{sum(passed.values())}/{len(ids)}" for passed in (ours, theirs, patient))
            yield f"| {name} | {kind} | {counts} | {_ids(only_ours)} | {_ids(only_theirs)} |"
    yield from ("", CODE_WHY, "")


CODE_WHY = """Why:

- HumanEval/32 (`find_zero`): EvalPlus 0.3.1 never records its success, so no model can reach 164.
- Programs that pass only under the patient limits needed over 1 s of wall time on the busy machine; ours are CPU time.
- EvalPlus passes an object that equals everything: it compares with `==`, which that object defines.
- EvalPlus passes a program that sets the result: it keeps the verdict in the process of the program.

Elsewhere the two agree on these programs. A test (`tests/test_walls.py`) covers what they leave out: outputs that are
NumPy's scalars or arrays, under each oracle, against EvalPlus' own lines. Version 1 of the four tasks refused them
(0 of 8 right programs, EvalPlus 8 of 8); version 2 agrees with EvalPlus, except that shapes must be the same and not
merely broadcast, and that extended precision, dates, records, masked arrays and subclasses of `ndarray` are refused."""


def _programs(task: Task, every: int) -> Iterator[tuple[str, list[str], Callable[[Task, str], str]]]:
    chosen = [problem.id for problem in task.items[::every]]
    by_id = {problem.id: problem.reference for problem in task.items}

    def named(template: str) -> Callable[[Task, str], str]:
        return lambda _, key: template.format(name=by_id[key].entry_point)

    yield "canonical", chosen, lambda _, key: by_id[key].prompt + by_id[key].canonical_solution
    yield "returns None", chosen, named(RETURNS_NONE)
    yield "equals everything", chosen[:FORGED], named(EQUALS_ALL)
    yield "sets the result", chosen[:FORGED], named(SETS_THE_RESULT)


# -- what models wrote ------------------------------------------------------------------------------------------

OUTPUTS = Path(__file__).resolve().parents[2] / "micro/completions"
DIFFERENCES = 6  # shown per grader


def _outputs() -> Iterator[str]:
    yield from (
        "## What models wrote: every stored completion of `results/micro`",
        "",
        "Students and teachers on generated problems. EvalPlus gets the stub with the completion through its own",
        "sanitiser, as its scripts do for a model without chat template.",
        "",
        "| task | grader | completions | accepted by ours | by the library | only by ours | only by the library |",
        "|---|---|---|---|---|---|---|",
    )
    maths, code = open_task("amc23@micro"), open_task("humaneval@micro")
    golds = {problem.id: problem.reference.text for problem in maths.items}
    passes = evalplus("humaneval", {row["task_id"]: dict(row) for row in code.data.rows}, code.plus)
    verdicts: dict[tuple[str, str], bool] = {}

    def run(key: str, text: str) -> bool:
        from evalplus.sanitize import sanitize

        problem = next(p.reference for p in code.items if p.id == key)
        program = sanitize(problem.prompt + text, problem.entry_point)
        if (key, program) not in verdicts:  # models of one family write many equal programs
            verdicts[key, program] = passes(key, program, PATIENT_S)
        return verdicts[key, program]

    shown: list[str] = []
    for task, grader, right in (
        (maths, "math-verify, wrapped", lambda key, text: wrapped(golds[key], text)),
        (maths, "strings (lm-eval's `aime`)", lambda key, text: strings(golds[key], text)),
        (code, "EvalPlus, patient", run),
    ):
        rows = [row for path in sorted(OUTPUTS.glob(f"*-{task.title}-*.jsonl*")) for row in _stored(path)]
        ours, theirs = [row["score"] == 1 for row in rows], [right(row["problem_id"], row["text"]) for row in rows]
        apart = [(row, us) for row, us, it in zip(rows, ours, theirs, strict=True) if us != it]
        only = sum(us for _, us in apart), sum(not us for _, us in apart)
        yield f"| {task.title} | {grader} | {len(rows)} | {sum(ours)} | {sum(theirs)} | {only[0]} | {only[1]} |"
        for row, us in apart[:DIFFERENCES]:
            side = "ours" if us else "the library"
            shown.append(f"- {grader}, accepted only by {side}: {row['reason']}; {row['text'][-60:]!r}")
    yield from ("", *(shown or [AGREED]), "")


def _stored(path: Path) -> list[Mapping[str, Any]]:
    return parse(path.read_bytes(), path)


AGREED = """No verdict differs: the micro models box plain integers and write short programs. Graders
differ in which forms of an answer they accept; the golds above have such forms, these outputs do not."""


# -- judged ----------------------------------------------------------------------------------------------------


def _judged() -> Iterator[str]:
    yield from ("## Recorded judgements: AlpacaEval's published rates", "")
    for published in published_verdicts.recorded_win_rates(locate("alpaca_eval")[0]):
        yield f"- {published_verdicts.win_rate(published)[1]}"
    yield from ("", JUDGED_WHY)


JUDGED_WHY = """Why: a win rate is the same mean over the same judgements. A length-controlled rate is a fit that
the published one regularises by two baselines whose judgements are not public; ours recovers them from the
published weights."""


PARTS = {"maths": _maths, "outputs": _outputs, "judgements": _judged}


def _ids(ids: Sequence[str]) -> str:
    rest = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return (", ".join(ids[:SHOWN]) + rest) or "none"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m results.scripts.grading.agreement", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--code", nargs="+", choices=list(CODE), help="only the rows of these code benchmarks")
    parser.add_argument("--every", type=int, default=1, help="with --code: every N-th problem (default: all)")
    parser.add_argument("--part", choices=list(PARTS), help="only this part of the page")
    chosen = parser.parse_args(words)
    if "HARNESS_DATA" not in os.environ:
        raise BadInput("the libraries are compared on the benchmark files: set HARNESS_DATA")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache  # EvalPlus unpickles what it finds there
        parts = _code(chosen.code, chosen.every) if chosen.code else PARTS[chosen.part]() if chosen.part else report()
        for line in parts:
            print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
