"""The scripts that hold the harness against others on real weights: the parts that need no weights."""

import json
from types import SimpleNamespace

import pytest

from harness.evaluation.lm_eval_task import open_lm_eval_task
from results.scripts.real import lm_eval_texts, page


def test_the_common_start_of_two_texts():
    assert page.common_start("abcd", "abXd") == 2
    assert page.common_start("abc", "abcd") == page.common_start("abcd", "abc") == 3
    assert page.common_start("", "a") == 0


def test_lm_evals_gsm8k_reads_local_files(tmp_path, monkeypatch):
    (tmp_path / "gsm8k").mkdir()
    for split, numbers in (("train", (1, 2, 3)), ("test", (4, 5))):
        rows = [json.dumps({"question": f"What is {n}?", "answer": f"It is {n}\n#### {n}"}) for n in numbers]
        (tmp_path / "gsm8k" / f"{split}.jsonl").write_text("\n".join(rows))
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    lm_eval_texts.task_file(tmp_path, shots=2, tokens=7)
    task = open_lm_eval_task(f"{tmp_path}/{lm_eval_texts.NAME}")
    assert [row["question"] for row in task.data.rows] == ["What is 4?", "What is 5?"]
    assert task.decoding.max_new_tokens == 7 and task.decoding.temperature == 0
    assert task.lm_eval_task.get_config("num_fewshot") == 2
    assert task.filters == ["strict-match", "flexible-extract"]


def test_a_text_that_parts_without_a_reason_fails():
    pytest.importorskip("evalplus")
    from results.scripts.real.evalplus_texts import _cell

    ours = SimpleNamespace(text="def f():\n    return 1", ids=(1, 2, 3))
    ties = [SimpleNamespace(near_tie=lambda i, made, common, gap=gap: (gap, 0.1)) for gap in (0.05, 0.5)]
    stops = [SimpleNamespace(earlier_stop=lambda i, k=k: k) for k in (1, None)]
    assert _cell(0, ours, ours.text, None, None) == (True, "equal")
    assert not _cell(0, ours, "def g", None, None)[0]
    assert [_cell(0, ours, "def f(x", one, None)[0] for one in ties] == [True, False]
    assert [_cell(2, ours, "def", None, one)[0] for one in stops] == [True, False]
    assert not _cell(2, ours, "class", None, stops[0])[0]  # a criterion cuts a text, it writes no other
