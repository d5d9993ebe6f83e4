"""The seeded run over spoilt completions, in small; results/grading/fuzz.md is the log of the large one."""

import pytest

from harness.evaluation.benchmarks import open_task
from harness.grading.code import differential
from harness.types import Verdict
from results.scripts.grading import fuzz
from results.scripts.grading.fuzz_texts import GENTLE_BOMBS, KINDS


@pytest.fixture
def tasks():
    return [open_task("olympiadbench@micro"), open_task("humaneval@micro")]


def test_every_spoilt_completion_gets_a_verdict_and_no_process_is_left(tasks, monkeypatch):
    monkeypatch.setattr(fuzz, "BOMB_EVERY", 20)
    monkeypatch.setattr(differential, "FLOOR_S", 0.5)
    fuzz.shared_pool().close()
    before = len(fuzz.descendants())
    found = fuzz.fuzz(tasks, 300, 0, GENTLE_BOMBS)
    assert sum(found.values()) == 300
    assert {kind for _, kind, _ in found} >= {*KINDS, *GENTLE_BOMBS}
    fuzz.shared_pool().close()
    fuzz.shared().close()
    assert len(fuzz.descendants()) <= before


def test_a_completion_can_be_had_again(tasks):
    one, two = ([c for *_, c in fuzz.draw(tasks, 40, 7, GENTLE_BOMBS)] for _ in range(2))
    assert one == two != [c for *_, c in fuzz.draw(tasks, 40, 8, GENTLE_BOMBS)]


def test_a_broken_verdict_ends_the_run(tasks, monkeypatch):
    monkeypatch.setattr(tasks[0], "grade_all", lambda asked: [Verdict(c.problem_id, c.sample, 2.0, "x") for c in asked])
    with pytest.raises(fuzz.Broken, match="score=2"):
        fuzz.fuzz(tasks[:1], 3, 0)
