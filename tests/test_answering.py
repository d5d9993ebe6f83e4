"""Completions and their verdicts: graded beside the model where a task can be, and the same rows either way."""

import threading
import time

import pytest

from harness.errors import RunFailed
from harness.evaluation import evaluate
from harness.models.generate import Generated
from harness.task import Data, Task
from harness.types import Decoding, Problem, Prompt, Verdict

N, BATCH = 40, 2  # windows of eight problems


class Counting(Task):
    """Half of its answers are right."""

    name, version, family, metric = "counting", "1", "code", "pass@1"
    decoding = Decoding()

    def problems(self, rows):
        return [Problem(str(i), Prompt(user=f"{i}", plain=f"{i}"), i) for i in range(N)]

    def grade(self, problem, text):
        return Verdict(problem.id, 0, float(int(text) % 2), "counted", text)


class Model:
    """Repeats its prompts; the second call waits until something was graded."""

    batch = BATCH

    def __init__(self, graded=None):
        self.graded, self.calls = graded, 0

    def chats(self, prompt):
        return False

    def render(self, prompt):
        return prompt.plain

    def generate(self, texts, decoding, seeds, watch=None):
        self.calls += 1
        if self.graded is not None and self.calls > 1:
            assert self.graded.wait(30), "nothing is graded meanwhile"
            time.sleep(0.1)
        return [Generated(text, (1,), (0.0,), "stop", 1) for text in texts]


def answers(task, model):
    told = []
    rows = evaluate.answer(task, task.items, model, task.decoding, 0, lambda *words: told.append(words[:3]))
    return rows, told


@pytest.fixture
def task():
    return Counting(Data(rows=[], source="made", sha256="", world="micro"))


def test_a_task_that_can_be_is_graded_while_the_model_writes_on(task, monkeypatch):
    expected, told = answers(task, Model())
    assert [row["score"] for row in expected] == [i % 2 for i in range(N)]
    assert told[-1] == ("grade counting@micro", N, N) and told[-2] == ("grade counting@micro", 0, N)

    graded, threads, grade_all = threading.Event(), set(), task.grade_all

    def aside(completions):
        threads.add(threading.current_thread().name)
        graded.set()
        return grade_all(completions)

    monkeypatch.setattr(Counting, "grades_aside", True)
    monkeypatch.setattr(task, "grade_all", aside)
    model = Model(graded)
    assert answers(task, model)[0] == expected
    assert model.calls == 5 and threads == {"grade_0"}


def test_a_grader_that_fails_ends_the_run_before_all_is_written(task, monkeypatch):
    failed = threading.Event()

    def fails(completions):
        failed.set()
        raise RunFailed("the canonical solution of 3 fails")

    monkeypatch.setattr(Counting, "grades_aside", True)
    monkeypatch.setattr(task, "grade_all", fails)
    model = Model(failed)
    with pytest.raises(RunFailed, match="canonical solution of 3"):
        answers(task, model)
    assert model.calls < 5
