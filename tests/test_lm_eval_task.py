"""lm-eval's own tasks from the command line to a record."""

import json

import pytest
from test_lm_eval_adapter import CHOOSE, DOCUMENTS, GENERATE

from harness.cli import main
from harness.errors import BadInput
from harness.evaluation.benchmarks import open_task


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "lm").mkdir()
    (tmp_path / "lm/echoes.yaml").write_text(GENERATE)
    (tmp_path / "lm/choices.yaml").write_text(CHOOSE)
    (tmp_path / "lm/documents.py").write_text(DOCUMENTS)
    return tmp_path / "lm"


def test_lm_eval_tasks_make_records(folder, models, tmp_path, capsys):
    words = ["run", "--method", "untouched", "--recipe", "micro", "--student", str(models[0]), "--json"]
    tasks = ["--task", f"lm_eval:{folder}/choices", "--task", f"lm_eval:{folder}/echoes"]
    assert main([*words, *tasks, "--results", str(tmp_path / "results")]) == 0
    chosen, echoed = json.loads(capsys.readouterr().out)["records"]
    assert chosen["task"] == "lm_eval:choices" and chosen["counts"]["total"] == 3
    assert 0 <= chosen["score"] <= 1 and chosen["score"] == chosen["counts"]["correct"] / 3
    assert chosen["protocol"]["grader"]["engine"] == "lm-eval" and chosen["protocol"]["dataset"]["n"] == 3
    assert echoed["task"] == "lm_eval:echoes" and echoed["score"] == 0
    assert (chosen["first_prompt"], echoed["first_prompt"]) == ("a?", "say a")
    assert echoed["protocol"]["decoding"]["max_new_tokens"] == 5
    assert chosen["protocol"]["hash"] != echoed["protocol"]["hash"]
    rows = (tmp_path / "results" / chosen["completions"]["file"]).read_text().splitlines()
    assert json.loads(rows[0])["reason"].startswith("acc by lm-eval")

    assert main([*words, *tasks[:2], "--results", str(tmp_path / "results")]) == 0
    assert json.loads(capsys.readouterr().out)["records"][0]["reused"]
    assert main(["table", "--results", str(tmp_path / "results")]) == 0
    assert "eval:choices" in capsys.readouterr().out


def test_limits_and_mistakes(folder):
    with pytest.raises(BadInput, match="unknown lm-eval task 'choises'; did you mean choices"):
        open_task(f"lm_eval:{folder}/choises")
    with pytest.raises(BadInput, match="no folder of task files"):
        open_task("lm_eval:nowhere/choices")
    with pytest.raises(BadInput, match="graded by lm-eval while it runs"):
        task = open_task(f"lm_eval:{folder}/choices")
        task.grade(task.items[0], "yes")
