"""Estimates against what PyTorch itself counts, and against published parameter counts."""

import contextlib
from dataclasses import replace

import pytest
import torch

from harness import recipe
from harness.estimate.memory_check import work
from harness.estimate.resources import (
    DEVICES,
    PUBLISHED,
    Shape,
    Work,
    decode_seconds,
    estimate,
    excess,
    memory_of,
    stages_of,
)
from harness.estimate.shapes import token_flops
from harness.plan import configured
from harness.training.loop import _checkpoint_layers

SMALL = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2}
SMALL |= {"intermediate_size": 320, "vocab_size": 512, "tie_word_embeddings": False}
PAPER = Work(
    PUBLISHED["Qwen/Qwen2.5-Math-1.5B"],
    PUBLISHED["Qwen/Qwen2.5-Math-7B-Instruct"],
    steps=1000,
    batch=128,
    micro_batch=4,
    prompt_tokens=256,
    response_tokens=768,
    precision="bfloat16",
    on_policy=0.5,
    teacher_texts=7473,
)


def small_model():
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(LlamaConfig(**SMALL, attn_implementation="sdpa"))


def test_parameters_are_those_of_the_model_but_for_norms():
    counted = sum(p.numel() for p in small_model().parameters())
    assert Shape.of(SMALL).parameters == pytest.approx(counted, rel=2e-3)


@pytest.mark.parametrize(
    ("name", "billions"),
    [("Qwen/Qwen2.5-Math-7B-Instruct", 7.62), ("Qwen/Qwen2.5-Math-1.5B", 1.54), ("google/gemma-2-9b-it", 9.24)],
)
def test_published_shapes_have_the_published_size(name, billions):
    assert PUBLISHED[name].parameters / 1e9 == pytest.approx(billions, rel=0.01)


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_activations_are_what_autograd_keeps(precision, checkpointed):
    model, sizes = small_model().train(), {}
    if checkpointed:
        _checkpoint_layers(model, "small")
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in own and tuple(tensor.shape) not in weights:
            sizes[tensor.untyped_storage().data_ptr()] = (tensor.untyped_storage().nbytes(), tensor)
        return tensor

    # autocast's copies of the weights are counted apart, as 2 bytes a parameter
    weights = {s for p in model.parameters() if p.dim() == 2 for s in (tuple(p.shape), tuple(p.shape[::-1]))}
    ids = torch.randint(0, 512, (4, 48))
    cast = torch.autocast("cpu", torch.bfloat16) if precision == "bfloat16" else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), cast:
        hidden = model.model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).last_hidden_state
    assert hidden.requires_grad
    kept = sum(size for size, _ in sizes.values())
    # The layer that the backward pass computes again is counted too, and is not there yet.
    again = Shape.of(SMALL | {"num_hidden_layers": 1}).activation_bytes(ids.numel(), precision) if checkpointed else 0
    again -= 8 * ids.numel() * SMALL["hidden_size"] if checkpointed else 0
    counted = Shape.of(SMALL).activation_bytes(ids.numel(), precision, checkpointed)
    assert counted - again == pytest.approx(kept, rel=0.1)


def test_the_cache_is_as_large_as_the_one_of_transformers():
    model, ids = small_model().eval(), torch.randint(0, 512, (3, 20))
    with torch.no_grad():
        cache = model(input_ids=ids, use_cache=True).past_key_values
    size = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert Shape.of(SMALL).cache_bytes(60, 4) == size


def test_processes_share_states_when_sharded_and_rows_always():
    whole, copied = memory_of(PAPER), memory_of(replace(PAPER, processes=8))
    cut = memory_of(replace(PAPER, processes=8, sharded=True))
    states = "student weights, gradients, optimizer"
    assert whole[states] == copied[states] == 16 * PAPER.student.parameters
    assert cut[states] == pytest.approx(whole[states] / 8, rel=1e-6)
    assert replace(PAPER, processes=8).rows == 16
    # Sharded, the whole weights stand beside the part while they sample (in bfloat16, with the cache) or are published.
    alone = replace(PAPER, processes=8, teacher=None)
    whole, twin = memory_of(alone), memory_of(replace(alone, sharded=True))
    assert whole["copy of the student that samples"] == 2 * PAPER.student.parameters
    assert twin["copy of the student that samples"] == 0
    assert twin["generation"] == max(4 * PAPER.student.parameters, 2 * PAPER.student.parameters + whole["generation"])
    exact = memory_of(replace(alone, sampled_in="float32"))
    assert exact["copy of the student that samples"] == 0 and exact["generation"] > whole["generation"]


def test_time_is_linear_in_steps_and_falls_with_processes():
    one = estimate(PAPER, DEVICES["H100-80GB"])
    two = estimate(replace(PAPER, steps=2000), DEVICES["H100-80GB"])
    for stage in one.time:
        factor = 1 if stage == "teacher texts" else 2
        assert two.time[stage] == pytest.approx(factor * one.time[stage])
    assert estimate(replace(PAPER, processes=8), DEVICES["H100-80GB"]).seconds < one.seconds
    assert decode_seconds(PAPER.student, 0, 1, 1, 1, 4, DEVICES["H100-80GB"]) == 0


def test_stages_add_up_to_the_estimate():
    found, stages = estimate(PAPER, DEVICES["H100-80GB"]), list(stages_of(PAPER, DEVICES["H100-80GB"]))
    names = ["teacher texts", "student rollouts", "teacher forward", "student forward and backward"]
    assert [stage.stage for stage in stages] == names == list(found.time)
    assert max(stage.memory for stage in stages) == found.peak
    assert sum(stage.seconds for stage in stages) == found.seconds
    texts, rollouts, taught, trained = stages
    assert texts.tokens == 7473 * 768 and rollouts.tokens == 1000 * 64 * 768
    assert taught.tokens == trained.tokens == 1000 * 128 * 1024
    assert trained.flops == 3 * PAPER.student.flops(trained.tokens, 512)
    # attention adds to the rule of 6 a parameter and token, and never much at this length
    plain = token_flops(PAPER.student.parameters, 0, trained.tokens, 0, 0)
    assert plain < trained.flops < 1.1 * plain
    quiet = replace(PAPER, teacher=None, on_policy=0.0)
    assert [stage.stage for stage in stages_of(quiet, DEVICES["H100-80GB"])] == names[3:]


@pytest.mark.parametrize(
    ("name", "reads"), [("sft", None), ("kd", "teacher"), ("opsd", "student"), ("opsd@live", "student")]
)
def test_who_reads_as_the_teacher_has_its_own_size(name, reads):
    method, *_ = configured(name, recipe.load("micro"), {})
    shapes = {"student": PAPER.student, "teacher": PAPER.teacher, None: None}
    found = work(method, recipe.load("micro"), shapes["student"], shapes["teacher"], 10, (10, 10))
    assert found.teacher == shapes[reads]
    assert (found.teacher_bytes == 0) == (name in ("sft", "opsd@live"))


def test_the_paper_scale_plan_fits_one_large_device_and_says_what_was_assumed():
    found = estimate(PAPER, DEVICES["H100-80GB"])
    assert found.standing < found.peak < DEVICES["H100-80GB"].memory
    assert any("assumed" in line for line in found.assumptions)
    assert excess(PAPER, DEVICES["H100-80GB"].memory) is None


def test_a_batch_that_cannot_fit_is_told_by_how_much_and_what_to_lower():
    greedy = replace(PAPER, micro_batch=128)
    over, mend = excess(greedy, 80e9)
    assert over == pytest.approx(memory_of(greedy)["forward and backward"] + 24.7e9 + 15.2e9 + 3.1e9 - 80e9, rel=0.01)
    assert mend.startswith("lower training.micro_batch from 128 to ")
    fitting = int(mend.partition(";")[0].split()[-1])
    assert excess(replace(greedy, micro_batch=fitting), 80e9) is None
    assert excess(replace(greedy, micro_batch=fitting + 1), 80e9) is not None


def test_what_no_batch_size_can_mend_is_told_so():
    assert "smaller model" in excess(PAPER, 30e9)[1]
    assert "training.max_tokens" in excess(replace(PAPER, micro_batch=1, response_tokens=10**6), 80e9)[1]
    wide = replace(PAPER, generation_batch=4096, batch=8192)
    assert "lower evaluation.batch from 4096 to" in excess(wide, 70e9)[1]


def test_an_adapter_keeps_gradients_and_moments_of_its_own_weights_only():
    few = replace(PAPER, trained=10**7)
    assert few.states == 4 * (PAPER.student.parameters + 10**7) + 12 * 10**7
    assert memory_of(few)["teacher weights"] == memory_of(PAPER)["teacher weights"]
    trained = [list(stages_of(work, DEVICES["H100-80GB"]))[-1].flops for work in (PAPER, few)]
    assert 2 / 3 < trained[1] / trained[0] < 0.7  # no gradients of the weights beside it
    again = list(stages_of(replace(PAPER, checkpointed=True), DEVICES["H100-80GB"]))[-1].flops
    assert again == pytest.approx(trained[0] * 4 / 3)


def test_settings_that_take_memory_away_are_named_with_what_they_save():
    greedy = replace(PAPER, micro_batch=128)
    _, fix = excess(greedy, 80e9)
    saved = (
        memory_of(greedy)["forward and backward"]
        - memory_of(replace(greedy, checkpointed=True))["forward and backward"]
    ) / 1e9
    assert f"training.gradient_checkpointing=true saves {saved:.1f} GB" in fix
    assert fix.index("gradient_checkpointing") < fix.index("student.adapter=lora saves")
    # What is in use already, or would save next to nothing, is not proposed.
    assert "gradient_checkpointing" not in excess(replace(greedy, checkpointed=True), 30e9)[1]
    assert "student.adapter" not in excess(replace(PAPER, trained=10**7), 15e9)[1]
