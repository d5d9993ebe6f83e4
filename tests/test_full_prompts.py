"""Prompts that fill ``training.max_tokens``: no label is made of them, and a run of nothing else is refused."""

import json

import pytest
import torch

from harness.cli import main
from harness.training.loop import decayed


def rows(path, prompts):
    path.write_text("".join(json.dumps({"prompt": p, "response": "ab"}) + "\n" for p in prompts))
    return path


@pytest.mark.parametrize("method", ["sft", "kd", "gkd"])
def test_a_run_whose_prompts_all_fill_the_room_ends_in_one_line(method, models, tmp_path, capsys):
    data = rows(tmp_path / "p.jsonl", ["x" * 40] * 6)
    assert main(_words(method, models, data, tmp_path)) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the prompts fill training.max_tokens=32; raise it" in error


@pytest.mark.parametrize("signal", ["hidden", "top-k"])
def test_a_cached_signal_has_no_rows_for_them(signal, models, tmp_path, capsys):
    data = rows(tmp_path / "p.jsonl", ["x" * 40, "y"] * 3)
    assert main([*_words("kd", models, data, tmp_path), "--set", f"training.signal={signal}"]) == 0
    data = rows(tmp_path / "q.jsonl", ["x" * 40] * 6)
    assert main([*_words("kd", models, data, tmp_path), "--set", f"training.signal={signal}"]) == 1
    assert "the prompts fill training.max_tokens=32" in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize("method", ["sft", "kd", "gkd"])
def test_the_others_train_and_the_cut_ones_are_counted(method, models, tmp_path, capsys):
    data = rows(tmp_path / "p.jsonl", ["x" * 40, "y"] * 3)
    assert main(_words(method, models, data, tmp_path)) == 0
    (record,) = json.loads(capsys.readouterr().out)["records"]
    assert any("were cut to training.max_tokens=32" in warning for warning in record["warnings"])


def _words(method, models, data, tmp_path):
    words = ["run", "--method", method, "--student", str(models[0]), "--teacher", str(models[1]), "--json"]
    settings = ["training.steps=2", "training.batch=6", "training.max_tokens=32", "evaluation.limit=1"]
    settings += [f"data.prompts={data}", f"data.labelled={data}", "evaluation.max_new_tokens=2"]
    settings += ["rollout.max_new_tokens=4", "teacher_text.max_new_tokens=4"]
    words += [word for setting in settings for word in ("--set", setting)]
    return [*words, "--task", "amc23@micro", "--results", str(tmp_path / "results")]


def test_norms_and_biases_are_spared_only_where_asked():
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))
    (every,) = decayed(module, True)
    assert len(every["params"]) == 4 and "weight_decay" not in every
    matrices, rest = decayed(module, False)
    assert [p.ndim for p in matrices["params"]] == [2] and len(rest["params"]) == 3 and rest["weight_decay"] == 0
