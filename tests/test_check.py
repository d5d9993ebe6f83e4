"""The self-test of the graders: it is green on sound ones, says why on others, and names what it skipped."""

import json
import os
from pathlib import Path

import pytest

from harness.cli import main
from harness.evaluation import known_answers, self_check
from harness.evaluation.benchmarks import open_task

PARITY = str(Path(__file__).parent / "plugin/parity_plugin.py")
needs_data = pytest.mark.skipif("HARNESS_DATA" not in os.environ, reason="needs the benchmark files of HARNESS_DATA")

STATED = '''
"""A task that states its golds."""
from harness.errors import BadInput
from harness.task import Dataset, Task
from harness.types import Problem, Prompt, Verdict


class Echo(Task):
    name, version, family, metric = "echo", "1", "repeating", "accuracy"
    dataset = Dataset("echo/test.jsonl", "example/echo", "0" * 40, "test.jsonl", "0" * 64, 2)

    def problems(self, rows):
        if not all("say" in r for r in rows):
            raise BadInput("echo: a row has no 'say'")
        return [Problem(str(i), Prompt(r["say"], r["say"]), r["say"]) for i, r in enumerate(rows)]

    def grade(self, problem, text):
        return Verdict(problem.id, 0, float(GRADER), "looked at", text)

    def gold_completion(self, problem):
        return problem.reference
'''


@pytest.fixture
def echo(tmp_path, monkeypatch):
    """Writes a task whose grader is the given expression over ``problem`` and ``text``; returns its file."""
    (tmp_path / "data/echo").mkdir(parents=True)
    (tmp_path / "data/echo/test.jsonl").write_text('{"say": "a"}\n{"say": "b"}\n')
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))

    def write(grader):
        (tmp_path / "echo.py").write_text(STATED.replace("GRADER", grader))
        return str(tmp_path / "echo.py")

    return write


def checked(capsys, *words):
    code = main(["check", *(w for word in words for w in ("--task", word)), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_sound_grader_is_green(echo, capsys):
    code, found = checked(capsys, echo("text == problem.reference"))
    (task,) = found["tasks"]
    assert code == 0 and found["green"] and task["status"] == "green"
    assert task["golds"] == {"passed": 2, "total": 2} and task["traps"] == {"passed": 2, "total": 2}


@pytest.mark.parametrize(
    ("grader", "golds", "traps", "must"),
    [("text == 'a' and problem.reference == 'a'", 1, 2, "pass"), ("True", 2, 0, "fail")],
    ids=["too strict", "too lenient"],
)
def test_a_wrong_grader_is_not_green_and_every_failure_is_explained(echo, capsys, grader, golds, traps, must):
    path = echo(grader)
    code, found = checked(capsys, path)
    (task,) = found["tasks"]
    assert code == 1 and not found["green"] and task["status"] == "failed"
    assert (task["golds"]["passed"], task["traps"]["passed"]) == (golds, traps)
    assert len(task["failures"]) == 4 - golds - traps
    assert all(f["must"] == must and f["problem_id"] and "looked at" in f["reason"] for f in task["failures"])
    assert main(["check", "--task", path]) == 1
    assert f"must {must}: looked at" in capsys.readouterr().out


def test_what_cannot_be_checked_is_named_with_the_reason(echo, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HARNESS_HUB", "http://127.0.0.1:9")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    code, found = checked(capsys, echo("text == problem.reference"), "amc23", "evol_instruct", PARITY)
    reasons = {task["task"]: task["reason"] for task in found["tasks"] if task["status"] == "skipped"}
    assert code == 0 and len(reasons) == 3
    assert "HARNESS_DATA/amc23/test.jsonl" in reasons["amc23"] and "evol_instruct" in reasons["evol_instruct"]
    assert checked(capsys, "amc23")[0] == 1  # nothing was checked: that is not green

    assert main(["check", "--task", "amc32"]) == 2
    assert "did you mean amc23" in capsys.readouterr().err


def some(name, n, monkeypatch, traps=1):
    """The known answers of the first ``n`` problems of a task, graded."""
    monkeypatch.setattr(known_answers, "TRAPPED", traps)
    task = open_task(name)
    task.items = task.items[:n]
    found = self_check.Checked(name)
    self_check.grade_known(task, found, lambda *_: None, self_check._Waited())
    return found


@pytest.mark.parametrize("name", ["amc23", "gsm8k", "olympiadbench", "math500"])
@needs_data
def test_maths_golds_pass_and_wrong_answers_fail(name, monkeypatch):
    found = some(name, 20, monkeypatch, traps=0)
    assert not found.failures and found.golds.passed == 20 and found.traps.passed == 100


@pytest.mark.parametrize("name", ["humaneval", "mbppplus"])
@needs_data
def test_canonical_solutions_pass_and_wrong_programs_fail(name, monkeypatch):
    found = some(name, 3, monkeypatch, traps=0)
    assert not found.failures and found.golds.passed == 3 and found.traps.passed == 9


def test_generated_programs_and_forgeries(monkeypatch):
    monkeypatch.delitem(known_answers.CODE_TRAPS, "never ends")  # seconds of CPU time; its limit has its own tests
    found = some("humaneval@micro", 2, monkeypatch)
    assert not found.failures and found.golds.passed == 2 and found.traps.passed == 6 + 4


def test_generated_instructions(monkeypatch, capsys):
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    code, found = checked(capsys, "alpaca_eval@micro", "evol_instruct@micro")
    assert code == 0 and all(task["golds"] == {"passed": 150, "total": 150} for task in found["tasks"])


@needs_data
def test_recorded_judgements_give_the_published_win_rate(monkeypatch, capsys):
    from harness.evaluation import published_verdicts

    every = published_verdicts.recorded_win_rates
    monkeypatch.setattr(published_verdicts, "recorded_win_rates", lambda task: every(task)[:1])
    code, found = checked(capsys, "alpaca_eval")
    (task,) = found["tasks"]
    assert code == 0 and task["golds"] == {"passed": 1, "total": 1} and "published 26.4596" in task["notes"][0]


def test_the_last_line_names_what_was_not_checked():
    green = self_check.Checked("echo", golds=self_check.Tally(2, 2))
    skipped = self_check.Checked("vicuna_bench", "skipped", "no recorded judgements")
    failed = self_check.Checked("parity", "failed", failures=[])
    for found, exit_is_0, last in (
        ([green], True, "all green"),
        ([green, skipped], True, "all green; not checked: vicuna_bench"),
        ([green, skipped, failed], False, "not green; not checked: vicuna_bench"),
        ([skipped], False, "not green; not checked: vicuna_bench"),
    ):
        assert self_check.green(found) == exit_is_0
        assert self_check.text(found).splitlines()[-1] == last


def test_where_there_is_no_terminal_progress_is_a_line_now_and_then(capsys):
    import time

    from harness import progress

    with progress.Reporter(line_every=0.05) as reporter:
        reporter.progress("check amc23", 2, 6, "")
        time.sleep(1)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) >= 2 and all(line.startswith("check amc23: 2 of 6") for line in lines)
    with progress.Reporter(line_every=None) as reporter:
        reporter.progress("check amc23", 1, 6, "")
        time.sleep(0.2)
    assert capsys.readouterr().err == ""
