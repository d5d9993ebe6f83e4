"""Prompts that leave no room for an answer are left out before any work; a run of nothing else is refused."""

import json

import pytest
import torch
from conftest import byte_tokenizer
from transformers import GPT2Config, GPT2LMHeadModel

from harness.cli import main
from harness.training.optimizers import decayed


def rows(path, prompts):
    path.write_text("".join(json.dumps({"prompt": p, "response": "ab"}) + "\n" for p in prompts))
    return path


@pytest.mark.parametrize("method", ["sft", "seqkd", "kd", "gkd"])
def test_a_run_whose_prompts_all_fill_the_room_is_refused_before_any_work(method, models, tmp_path, capsys):
    data = rows(tmp_path / "p.jsonl", ["x" * 40] * 6)
    assert main(_words(method, models, data, tmp_path)) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "all 6 prompts of data." in line and "fill training.max_tokens=32: raise it" in line
    assert not (tmp_path / "results/work/teacher_texts").exists()


@pytest.mark.parametrize("signal", ["hidden", "top-k"])
def test_a_cached_signal_has_no_rows_for_them(signal, models, tmp_path):
    data = rows(tmp_path / "p.jsonl", ["x" * 40, "y"] * 3)
    assert main([*_words("kd", models, data, tmp_path), "--set", f"training.signal={signal}"]) == 0


@pytest.mark.parametrize("method", ["sft", "kd", "gkd"])
def test_the_others_train_and_those_left_out_are_counted(method, models, tmp_path, capsys):
    data = rows(tmp_path / "p.jsonl", ["x" * 40, "y"] * 3)
    assert main(_words(method, models, data, tmp_path)) == 0
    printed = capsys.readouterr()
    (record,) = json.loads(printed.out)["records"]
    (warning,) = [w for w in record["warnings"] if "left out" in w]
    assert warning.startswith("3 of 6 prompts of data.") and "training.max_tokens=32" in warning
    assert f"warning: {warning}" in printed.err
    (facts,) = [read for name, read in record["data"].items() if name != "contamination"]
    assert (facts["examples"], facts["left_out"]) == (3, 3)


@pytest.mark.parametrize("length", [30, 31])
def test_the_bound_is_one_token_of_room(length, models, tmp_path, capsys):
    data = rows(
        tmp_path / "p.jsonl", ["x" * length] * 6
    )  # rendered with a line end behind it, for a model without turns
    assert main(_words("sft", models, data, tmp_path)) == (0 if length < 31 else 2)


@pytest.mark.parametrize("method", ["sft", "gkd"])
def test_a_context_bounds_whole_sequences_of_absolute_positions(method, tmp_path, capsys):
    """Was an IndexError from the position embeddings: 80 + 4 tokens in a context of 64."""
    folders = []
    for seed, name in enumerate(("student", "teacher")):
        torch.manual_seed(seed)
        tokenizer = byte_tokenizer()
        end = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
        config = GPT2Config(vocab_size=258, n_positions=64, n_embd=16, n_layer=1, n_head=2, **end)
        GPT2LMHeadModel(config).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
        folders.append(tmp_path / name)
    data = rows(tmp_path / "p.jsonl", ["x" * 80, "y" * 62, "z"] * 2)
    words = _words(method, folders, data, tmp_path)
    assert main([*words, "--set", "training.max_tokens=2048"]) == 0
    (record,) = json.loads(capsys.readouterr().out)["records"]
    assert any("fill the context of student, 64 tokens" in warning for warning in record["warnings"])


def _words(method, models, data, tmp_path):
    words = ["run", "--method", method, "--student", str(models[0]), "--teacher", str(models[1]), "--json"]
    settings = ["training.steps=2", "training.batch=6", "training.max_tokens=32", "evaluation.limit=1"]
    settings += [f"data.prompts={data}", f"data.labelled={data}", "evaluation.max_new_tokens=2"]
    settings += ["rollout.max_new_tokens=4", "teacher_text.max_new_tokens=4"]
    words += [word for setting in settings for word in ("--set", setting)]
    return [*words, "--recipe", "micro", "--task", "amc23@micro", "--results", str(tmp_path / "results")]


def test_norms_and_biases_are_spared_only_where_asked():
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))
    (every,) = decayed(list(module.parameters()), True)
    assert len(every["params"]) == 4 and "weight_decay" not in every
    matrices, rest = decayed(list(module.parameters()), False)
    assert [p.ndim for p in matrices["params"]] == [2] and len(rest["params"]) == 3 and rest["weight_decay"] == 0
