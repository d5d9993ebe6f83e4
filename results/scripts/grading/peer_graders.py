"""The libraries' own verdicts, as their users get them.

EvalPlus runs programs without a sandbox: give it only programs that are known to be harmless.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.grading.code.task import HUMANEVAL_PLUS, MBPP_PLUS

FILES = {"humaneval": HUMANEVAL_PLUS.local, "mbpp": MBPP_PLUS.local}
Passes = Callable[[str, str, float | None], bool]  # of a task id, a program, a floor of the time limits or None


def wrapped(gold: str, text: str) -> bool:
    """math-verify with the gold between dollar signs."""
    return _verified(f"${gold.strip().strip('$')}$", text)


def bare(gold: str, text: str) -> bool:
    """math-verify with the gold as the file has it."""
    return _verified(gold, text)


def _verified(gold: str, text: str) -> bool:
    from math_verify import parse, verify

    return bool(verify(parse(gold), parse(text)))


def strings(gold: str, text: str) -> bool:
    """lm-eval's ``aime``, which compares strings."""
    from lm_eval.tasks.aime.utils import process_results

    return bool(process_results({"answer": gold}, [text])["exact_match"])


def give_evalplus_its_files() -> None:
    """Before its first import, which reads where they are. Raises KeyError without ``HARNESS_DATA``."""
    for name, local in FILES.items():
        os.environ[f"{name.upper()}_OVERRIDE_PATH"] = str(Path(os.environ["HARNESS_DATA"]) / local)


def evalplus_on_its_data(dataset: str, plus: bool, every: int = 1) -> Passes:
    """EvalPlus on every ``every``-th problem of its own file; ``dataset`` is humaneval or mbpp."""
    give_evalplus_its_files()
    from evalplus.data import get_human_eval_plus, get_mbpp_plus

    problems = get_human_eval_plus() if dataset == "humaneval" else get_mbpp_plus()
    return evalplus(dataset, dict(list(problems.items())[::every]), plus)


def evalplus(dataset: str, problems: Mapping[str, Mapping[str, Any]], plus: bool) -> Passes:
    """EvalPlus on ``problems`` in its row format, by task id."""
    from evalplus.eval import PASS, untrusted_check
    from evalplus.eval._special_oracle import MBPP_OUTPUT_NOT_NONE_TASKS
    from evalplus.evaluate import get_groundtruth

    only_not_none = MBPP_OUTPUT_NOT_NONE_TASKS if dataset == "mbpp" else []
    with contextlib.redirect_stdout(sys.stderr):  # where EvalPlus says that it computes
        expected = get_groundtruth(problems, f"{dataset}-peers-{len(problems)}", only_not_none)
    suites = ("base", "plus") if plus else ("base",)

    def passes(key: str, program: str, floor: float | None) -> bool:
        problem, truth = problems[key], expected[key]
        limits = {} if floor is None else {"min_time_limit": floor}
        return all(
            untrusted_check(
                dataset,
                program,
                problem[f"{suite}_input"],
                problem["entry_point"],
                truth[suite],
                problem["atol"],
                truth[f"{suite}_time"],
                fast_check=True,
                **limits,
            )[0]
            == PASS
            for suite in suites
        )

    return passes
