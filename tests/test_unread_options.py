"""No option is ignored in silence: refused where nothing reads it, told where only some of the request does."""

import json

import pytest

from harness.cli import main

RUN = ["run", "--dry-run", "--method"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--method", "untouched", "--task", "amc23@micro", "--judge", "longest"], "--judge: amc23@micro"),
        (["run", "--method", "untouched", "--task", "alpaca_eval@micro", "--judge", "longest"], "remove --judge"),
        (["run", "--method", "untouched", "--task", "humaneval@micro", "--protocol", "nobodys"], "nobodys"),
        (["run", "--method", "kd", "--task", "amc23@micro", "--set", "training.stepz=3"], "stepz"),
        (["run", "--method", "kd", "--task", "amc23@micro", "--control"], "--control"),
        (["table", "--cost", "tokens"], "--cost"),
        (["table", "--anchor", "kd"], "--anchor"),
    ],
)
def test_what_nothing_reads_is_refused_in_one_line(words, message, tmp_path, capsys):
    assert main([*words, "--results", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["untouched", "--task", "amc23@micro", "--teacher", "micro:teacher"], "--teacher has no effect"),
        (["untouched", "--task", "amc23@micro", "--set", "training.steps=3"], "--set training.steps=3 has no effect"),
        (["sft", "--task", "amc23@micro", "--set", "rollout.top_p=0.5"], "--set rollout.top_p=0.5 has no effect"),
        (["opd", "--task", "amc23@micro", "--set", "teacher_text.top_p=0.5"], "--set teacher_text.top_p=0.5"),
        (["kd", "--task", "amc23@micro", "--sandbox", "C"], "--sandbox has no effect"),
        (
            ["untouched", "--task", "amc23@micro", "--task", "humaneval@micro", "--protocol", "last-fence"],
            "--protocol last-fence has no effect on amc23@micro",
        ),
    ],
)
def test_what_only_some_read_is_told_in_one_line(words, message, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HARNESS_SANDBOX", "B")
    assert main([*RUN, *words, "--results", str(tmp_path)]) == 0
    assert capsys.readouterr().err.count(f"warning: {message}") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["kd", "--task", "amc23@micro", "--teacher", "micro:teacher", "--set", "training.steps=3"],
        ["gkd", "--task", "amc23@micro", "--set", "rollout.top_p=0.5"],
        ["kd", "--task", "humaneval@micro", "--protocol", "last-fence"],
    ],
)
def test_what_is_read_draws_no_word(words, tmp_path, capsys):
    assert main([*RUN, *words, "--results", str(tmp_path)]) == 0
    assert "has no effect" not in capsys.readouterr().err


def test_a_judge_that_some_tasks_read_is_told(monkeypatch):
    from harness.evaluation.benchmarks import open_task
    from harness.registry import find
    from harness.request import unused_judge
    from harness.task import Data

    row = {"instruction": "Say a.", "output": "a"}
    judged = find("tasks", "alpaca_eval")(Data([row], "0" * 64, "made up"), object())
    maths = open_task("amc23@micro")
    assert unused_judge([judged], "longest") == [] == unused_judge([maths], None)
    assert unused_judge([judged, maths], "longest") == [
        "--judge has no effect on amc23@micro, graded without your judge"
    ]


def test_grade_refuses_a_judge_that_nothing_reads(tmp_path, capsys):
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps({"problem_id": "0", "text": "x"}) + "\n")
    assert main(["grade", "--task", "amc23@micro", "--samples", str(path), "--judge", "longest"]) == 2
    assert "remove --judge" in capsys.readouterr().err
