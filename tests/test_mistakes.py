"""Mistakes in people's own methods and tasks: each is one line with FILE:LINE; right files conform."""

import gc
import sys
import warnings

import pytest

from harness.contract_checks import ProcessState
from results.scripts.grading import fuzz_mistakes
from results.scripts.grading.mistakes import HARMLESS, METHOD, METHODS, MISTAKES, TASK, TASKS, Mistake

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("mistakes", [METHODS, TASKS], ids=["methods", "tasks"])
def test_every_mistake_is_refused_with_its_place_and_leaves_the_process_as_it_was(tmp_path, mistakes):
    assert len(METHODS) >= 100 and len(TASKS) >= 60
    wrong = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a coroutine that nobody awaits is one of the mistakes
        for i, mistake in enumerate(mistakes):
            assert mistake.old in (METHOD if mistake.kind == "method" else TASK), mistake
            answer, fault = fuzz_mistakes.tried(mistake.kind, [mistake], tmp_path / f"own_{i}.py")
            if fault or mistake.expected not in answer or not answer:
                wrong.append((mistake.new.strip()[:80], mistake.expected, answer[:200], fault))
        gc.collect()
    assert not wrong, wrong


def test_harmless_changes_conform(tmp_path):
    for i, change in enumerate(HARMLESS):
        assert fuzz_mistakes.tried(change.kind, [change], tmp_path / f"own_{i}.py") == ("", ""), change


def test_the_family_reports_what_conforms_and_what_raises(monkeypatch):
    monkeypatch.setattr(fuzz_mistakes, "tried", lambda kind, changes, path: ("", ""))
    found = list(fuzz_mistakes.trials(40, 0))
    assert {trial.fault.partition(":")[0] for trial in found} == {"", "conforms"}
    monkeypatch.setattr(fuzz_mistakes, "tried", lambda kind, changes, path: ("raised", "raises KeyError: x"))
    assert all("raises KeyError" in trial.fault for trial in fuzz_mistakes.trials(5, 0))


def test_what_no_contract_knows_is_a_fault(tmp_path):
    odd = Mistake("method", "        raise KeyboardInterrupt\n", "", MISTAKES[0].old)
    assert "raises KeyboardInterrupt" in fuzz_mistakes.tried("method", [odd], tmp_path / "own_0.py")[1]


def test_a_recursion_limit_just_above_the_stack_is_restored():
    """Under it hardly anything can be called, so it is restored before anything else is looked at."""
    before, lowest = sys.getrecursionlimit(), 1
    while True:  # Python refuses a limit below the stack, whose depth counts more than its frames
        watch = ProcessState()
        try:
            sys.setrecursionlimit(lowest)
            break
        except RecursionError:
            lowest += 1
    change = watch.changed()
    assert sys.getrecursionlimit() == before > lowest > 10 and "recursion limit" in change[0]
