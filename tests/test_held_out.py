"""Curves say whose text a loss is of, and how far the student is from its teacher on text that nobody trains on."""

import json

import pytest
import torch
from tiny_runs import make, quiet, result
from transformers import AutoModelForCausalLM

from harness.cli import main
from harness.records.curves import thin
from harness.training.loop import train


@pytest.mark.parametrize(
    ("method", "signal"), [("kd", "live"), ("kd", "hidden"), ("kd", "top-k"), ("sft", "live"), ("seqkd", "live")]
)
def test_the_divergence_is_that_of_the_two_models_by_hand(method, signal, models, prompts_file, tmp_path):
    job = make(method, models, prompts_file, tmp_path, divergence_every=2, signal=signal, top_k=8)
    outcome = train(job, quiet)
    measured = {row["step"]: row["held_out_kl"] for row in outcome.curve if "held_out_kl" in row}
    assert list(measured) == [2, 3]
    teacher = AutoModelForCausalLM.from_pretrained(models[1])
    total, tokens = 0.0, 0
    for example in job.data.validation:
        prompt = outcome.tokenizer(example.prompt.plain)["input_ids"]
        answer = [*outcome.tokenizer(example.response)["input_ids"], outcome.tokenizer.eos_token_id]
        ids = torch.tensor([[*prompt, *answer]])
        with torch.no_grad():
            q, p = (
                m(ids).logits[0, len(prompt) - 1 : -1, :258].double().log_softmax(-1) for m in (outcome.model, teacher)
            )
        total += float((p.exp() * (p - q)).sum())
        tokens += len(answer)
    assert measured[3] == pytest.approx(total / tokens, rel=1e-4)


def test_measuring_changes_no_training_and_is_not_charged(models, prompts_file, tmp_path):
    plain, measured = (
        result(make("gkd", models, prompts_file, tmp_path, name=name, **more))
        for name, more in (("plain", {}), ("measured", {"divergence_every": 1}))
    )
    assert torch.equal(plain.weights, measured.weights) and plain.cost == measured.cost
    assert [row.pop("held_out_kl") > 0 for row in measured.curve] == [True] * 3
    assert plain.curve == measured.curve


def test_a_loss_is_told_for_each_source_of_text(models, prompts_file, tmp_path):
    both = result(make("distillm2", models, prompts_file, tmp_path, micro_batch=5)).curve
    for row in both:
        parts = [row["loss_teacher"], row["loss_student"]]
        assert min(parts) - 1e-6 <= row["loss"] <= max(parts) + 1e-6 and "loss_data" not in row
    assert result(make("distillm2", models, prompts_file, tmp_path, name="b", micro_batch=64)).curve[0][
        "loss_teacher"
    ] == pytest.approx(both[0]["loss_teacher"], rel=1e-4)
    # Seeds of gkd draw one source a step; a method of one source has nothing to tell apart.
    drawn = result(make("gkd", models, prompts_file, tmp_path, name="c")).curve
    for row in drawn:
        assert [row["loss"]] == [pytest.approx(v, rel=1e-6) for k, v in row.items() if k.startswith("loss_")]
    assert not any(
        k.startswith("loss_") for row in result(make("kd", models, prompts_file, tmp_path)).curve for k in row
    )


def test_a_thinned_curve_keeps_what_is_measured_at_some_steps():
    curve = [{"step": i + 1, "loss": 1.0} | ({"held_out_kl": 2.0} if i == 1 else {}) for i in range(6)]
    assert [point.get("held_out_kl") for point in thin(curve, 2)] == [2.0, None]


def test_a_run_needs_validation_data_for_it_and_records_it(tiny_world, prompts_file, tmp_path, capsys):
    recipe = tiny_world("[training]\nsteps = 2\nbatch = 2\nmax_tokens = 64\ndivergence_every = 0\n")
    words = ["run", "--method", "sft", "--task", "tests/plugin/parity_plugin.py", "--recipe", str(recipe), "--json"]
    words += ["--results", str(tmp_path / "results")]
    assert main(words) == 2
    assert "training.divergence_every measures on held-out examples: set data.validation" in capsys.readouterr().err
    assert main([*words, "--set", f"data.validation={prompts_file}"]) == 0
    (record,) = json.loads(capsys.readouterr().out)["records"]
    held = record["data"]["held_out"]
    assert held["forward_kl"] > 0 and held["examples"] == 12 and held["steps"] == 2 and record["teacher"] is None
