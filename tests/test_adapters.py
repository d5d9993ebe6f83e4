"""LoRA and DoRA: what they start from, what they compute, and what is kept of them."""

import json
from dataclasses import replace

import pytest
import torch
from conftest import byte_tokenizer, tiny_model
from tiny_runs import make, quiet, result

from harness.errors import BadInput
from harness.models import adapters, files
from harness.models.generate import Generator
from harness.models.llama_decoder import LlamaDecoder
from harness.recipe import Adapter
from harness.training.loop import train
from harness.types import Decoding
from results.scripts import lora

KINDS = [Adapter("lora", rank=4, alpha=8.0), Adapter("dora", rank=4, alpha=8.0)]
IDS = ["lora", "dora"]


def loaded(models, chosen=None, trained=False):
    """The student of ``models`` with an adapter; ``trained``: with every weight of it moved from its start."""
    found = files.locate(str(models[0]))
    model = files.load_model(found)
    if chosen is not None:
        adapters.attach(model, chosen, found.id)
    if trained:
        torch.manual_seed(5)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter += 0.2 * torch.randn_like(parameter)
    return model


def adapted(job, chosen):
    return replace(job, recipe=replace(job.recipe, student=chosen))


@pytest.mark.parametrize("chosen", KINDS, ids=IDS)
def test_a_new_adapter_leaves_the_model_bit_for_bit(models, chosen):
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(loaded(models)(ids).logits, loaded(models, chosen)(ids).logits)
        assert not torch.equal(loaded(models)(ids).logits, loaded(models, chosen, trained=True)(ids).logits)


@pytest.mark.parametrize("chosen", KINDS, ids=IDS)
@pytest.mark.parametrize("fuse", [True, False])
def test_the_decoder_of_rollouts_computes_the_adapter(models, chosen, fuse, monkeypatch):
    monkeypatch.setattr("harness.models.llama_decoder.FUSED_ELEMENTS", 2**24 if fuse else 0)
    model = loaded(models, chosen, trained=True)
    assert LlamaDecoder.fit(model)
    ids = torch.tensor([5, 9, 2, 7, 11])
    with torch.inference_mode():
        decoder = LlamaDecoder(model, 258, 2)
        ours = [decoder.add([ids[:4].tolist(), ids[:2].tolist()])[0], *decoder.step(ids[[4, 2]].tolist())]
        theirs = model(ids[None]).logits[0, [3, 4, 2], :258]
    torch.testing.assert_close(torch.stack(ours), theirs, rtol=1e-4, atol=1e-4)
    assert adapters.derives(model) == (chosen.adapter == "dora")  # its norms are of the weights as they were


@pytest.mark.parametrize("chosen", KINDS, ids=IDS)
def test_the_merged_student_is_the_adapted_one(models, chosen, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    ids, model = torch.arange(20)[None], loaded(models, chosen, trained=True)
    with torch.no_grad():
        before = model(ids).logits
        kept = adapters.merge(model, chosen, str(models[0]))
        torch.testing.assert_close(model(ids).logits, before, rtol=1e-4, atol=1e-4)
        # Whole and merged it is an ordinary model; the adapter's files are peft's own.
        model.save_pretrained(tmp_path / "merged")
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
        assert torch.equal(again(ids).logits, model(ids).logits)
        assert not any("lora" in name for name, _ in again.named_parameters())
        kept.save(tmp_path / "adapter")
        base = AutoModelForCausalLM.from_pretrained(models[0])
        assert torch.equal(PeftModel.from_pretrained(base, tmp_path / "adapter")(ids).logits, before)
    assert json.loads((tmp_path / "adapter/adapter_config.json").read_text())["base_model_name_or_path"] == str(
        models[0]
    )


def test_the_first_gradient_is_that_of_full_training_seen_through_the_adapter(models):
    """dL/dB = s G A^T and dL/dA = s B^T G with G = dL/dW: exact, so the adapter trains W and nothing else."""
    chosen = Adapter("lora", rank=4, alpha=8.0)
    ids = torch.arange(30)[None]
    plain, model = loaded(models), loaded(models, chosen)
    for one in (plain, model):
        one(ids, labels=ids).loss.backward()
    seen = 0
    for path, layer in model.named_modules():
        if not adapters.is_layer(layer):
            continue
        whole, down, up = plain.get_submodule(path).weight.grad, layer.lora_A["default"], layer.lora_B["default"]
        torch.testing.assert_close(up.weight.grad, 2.0 * whole @ down.weight.T, rtol=1e-4, atol=1e-6)
        assert not down.weight.grad.any() and not up.weight.any()
        seen += 1
    assert seen == 2 * 7
    assert all(p.grad is None for n, p in model.named_parameters() if "lora_" not in n)


def test_full_rank_with_an_orthonormal_factor_steps_as_full_training_does(models):
    """With A = I, rank = in and s = 1 one SGD step on B moves W as one SGD step on W: no other limit is exact."""
    target = "model.layers.1.mlp.down_proj"
    size = loaded(models).get_submodule(target).in_features
    ids, plain = torch.arange(30)[None], loaded(models)
    model = loaded(models, Adapter("lora", rank=size, alpha=float(size), targets=("layers.1.mlp.down_proj",)))
    layer = model.get_submodule(target)
    with torch.no_grad():
        layer.lora_A["default"].weight.copy_(torch.eye(size))
    for one, trained in ((plain, plain.get_submodule(target).weight), (model, layer.lora_B["default"].weight)):
        one(ids, labels=ids).loss.backward()
        with torch.no_grad():
            trained -= 0.1 * trained.grad
    torch.testing.assert_close(adapters.merged_weight(layer), plain.get_submodule(target).weight, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("chosen", KINDS, ids=IDS)
def test_only_the_adapter_is_trained_and_the_student_has_it_merged(models, prompts_file, tmp_path, chosen):
    job = adapted(make("gkd", models, prompts_file, tmp_path, learning_rate=5e-2), chosen)
    outcome = train(job, quiet)
    assert outcome.curve[-1]["loss"] < outcome.curve[0]["loss"]
    before = files.load_model(job.student).state_dict()
    moved = {n for n, t in outcome.model.state_dict().items() if not torch.equal(t, before[n])}
    linear = [n for n in before if n.endswith("proj.weight")]
    assert moved == set(linear) and not any("norm" in n or "embed" in n or "lm_head" in n for n in moved)
    assert all("lora_" in name for name in outcome.adapter.weights)
    # What the loop samples and trains with is what is saved: the adapter on the base gives the merged student's text.
    base = files.load_model(job.student)
    adapters.attach(base, chosen, "base")
    own = {n.removeprefix(adapters.PREFIX): t for n, t in outcome.adapter.weights.items()}
    from peft import set_peft_model_state_dict

    assert not set_peft_model_state_dict(base, own).unexpected_keys
    texts = [
        Generator(m.eval(), outcome.tokenizer).continue_ids([[1, 2, 3], [4, 5]], Decoding(max_new_tokens=12), [0, 0])
        for m in (base, outcome.model)
    ]
    assert [g.ids for g in texts[0]] == [g.ids for g in texts[1]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", IDS)
def test_an_interrupted_adapter_resumes_bit_for_bit_and_its_checkpoint_is_small(models, prompts_file, tmp_path, kind):
    chosen = Adapter(kind, rank=2, alpha=4.0, dropout=0.2)

    class Stop(Exception):
        pass

    def interrupt(stage, done, total, words):
        if stage == "train" and done == 3:
            raise Stop

    def job(name):
        return adapted(make("kd", models, prompts_file, tmp_path, name=name, steps=4, checkpoint_every=2), chosen)

    whole = train(job("whole"), quiet)
    with pytest.raises(Stop):
        train(job("cut"), interrupt)
    kept = torch.load(tmp_path / "cut/checkpoint.pt", weights_only=True)["student"]
    assert kept and all("lora_" in name for name in kept)
    resumed = train(job("cut"), quiet)
    for name, tensor in whole.adapter.weights.items():
        assert torch.equal(tensor, resumed.adapter.weights[name]), name
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("kind", IDS)
def test_loss_and_gradients_are_those_of_a_loop_written_by_hand(kind):
    words = ["--adapter", kind, "--steps", "3", "--set", "data.limit=8", "--set", "training.batch=4"]
    table, sound = lora.compare(lora.arguments([*words, "--set", "training.micro_batch=2", "--set", "student.rank=4"]))
    assert sound and table.count("\n| ") == 4


@pytest.mark.slow
def test_dropout_and_rank_change_the_run(models, prompts_file, tmp_path):
    plain, dropped, wide = (
        result(adapted(make("kd", models, prompts_file, tmp_path, name=str(i)), chosen)).weights
        for i, chosen in enumerate((KINDS[0], replace(KINDS[0], dropout=0.5), replace(KINDS[0], rank=8)))
    )
    assert not torch.equal(plain, dropped) and not torch.equal(plain, wide)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        (Adapter("lora", targets=("q_proj", "v_proj", "layers.1.mlp.down_proj")), None),
        (Adapter("lora", targets=("q_proj", "nonsense")), "has no module 'nonsense'"),  # peft takes this one
        (Adapter("lora", targets=("proj",)), "has no module 'proj'; its linear modules are down_proj"),
        (Adapter("lora", targets=("q_proj", "lm_head")), "the output head"),
        (Adapter("dora", targets=("embed_tokens",)), "the embedding"),
        (Adapter("lora", targets=("norm",)), "student.targets=norm"),
    ],
)
def test_targets_are_checked_before_any_work(models, chosen, said):
    found = files.locate(str(models[0]))
    if said is None:
        assert adapters.check(found, chosen) > 0
        return
    with pytest.raises(BadInput, match=r"student\.targets") as refusal:
        adapters.check(found, chosen)
    assert said in str(refusal.value) and "\n" not in str(refusal.value)


def test_the_size_of_an_adapter_is_known_before_the_weights_are_read(models, tmp_path):
    found = files.locate(str(models[0]))
    model = loaded(models, KINDS[1])
    assert adapters.check(found, KINDS[1]) == sum(p.numel() for p in model.parameters() if p.requires_grad)
    tied = files.locate(str(tiny_model(tmp_path / "tied", 3, tied=True)))
    assert adapters.check(tied, KINDS[0]) > 0


def test_without_peft_the_extra_is_named(models, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(BadInput, match=r"pip install 'reasoning-distillation-harness\[peft\]'"):
        adapters.check(files.locate(str(models[0])), KINDS[0])


@pytest.mark.slow
@pytest.mark.parametrize("kind", IDS)
def test_layers_that_are_no_linear_ones_of_torch(prompts_file, tmp_path, kind):
    """GPT-2 keeps its matrices transposed, and decodes through transformers."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folders, tokenizer = [tmp_path / "student", tmp_path / "teacher"], byte_tokenizer()
    for seed, folder in enumerate(folders):
        torch.manual_seed(seed)
        sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 128, "vocab_size": 264}
        config = GPT2Config(**sizes, eos_token_id=tokenizer.eos_token_id, bos_token_id=None)
        GPT2LMHeadModel(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
    job = make("gkd", folders, prompts_file, tmp_path, learning_rate=1e-2, gradient_checkpointing=True)
    outcome = train(adapted(job, Adapter(kind, rank=2)), quiet)
    assert outcome.curve[-1]["loss"] < outcome.curve[0]["loss"]
    base = files.load_model(job.student)
    adapters.attach(base, Adapter(kind, rank=2), "base")
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(base, {n.removeprefix(adapters.PREFIX): t for n, t in outcome.adapter.weights.items()})
    with torch.no_grad():
        ids = torch.arange(20)[None]
        torch.testing.assert_close(base.eval()(ids).logits, outcome.model(ids).logits, rtol=1e-5, atol=1e-5)
    with pytest.raises(BadInput, match="has no module 'q_proj'; its linear modules are c_attn, c_fc, c_proj"):
        adapters.check(job.student, Adapter(kind, targets=("q_proj",)))
