"""Models given as a GGUF file, as an adapter over its base, in shards; and what cannot be used says why."""

import json
import re
import shutil
import socket
import time
from pathlib import Path

import pytest
import torch
from conftest import byte_tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness import data
from harness.cli import main
from harness.errors import BadInput
from harness.estimate import shapes
from harness.models import files, weight_files

PARITY = str(Path(__file__).parent / "plugin/parity_plugin.py")


def write_gguf(model: Path, file: Path, *, architecture: str = "llama") -> Path:
    """The random Llama of a folder as a GGUF file in 32 bits, as llama.cpp writes it, tokenizer included."""
    from gguf import GGUFWriter  # not at the top: an extra

    loaded, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
    config, words = loaded.config, len(tokenizer)
    writer = GGUFWriter(str(file), architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    tokens = [tokenizer.convert_ids_to_tokens(i) for i in range(words)]
    # The format wants a merge: of two bytes that no text of these tests has.
    unused = ["Āā", *(f"<unused{i}>" for i in range(config.vocab_size - words - 1))]
    writer.add_token_list(tokens + unused)
    writer.add_token_types([3 if t in tokenizer.all_special_tokens else 1 for t in tokens] + [1] * len(unused))
    writer.add_token_merges(["Ā ā"])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    inner = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    for name, tensor in loaded.state_dict().items():
        stem = name.removesuffix(".weight")
        values = tensor.float()
        if stem not in names:
            layer, part = stem.removeprefix("model.layers.").split(".", 1)
            if inner[part] in ("attn_q", "attn_k"):  # llama.cpp keeps the halves of a rotation next to each other
                heads = config.num_attention_heads if inner[part] == "attn_q" else config.num_key_value_heads
                rows, columns = values.shape
                values = values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)
            stem = f"blk.{layer}.{inner[part]}"
        else:
            stem = names[stem]
        writer.add_tensor(f"{stem}.weight", values.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.fixture(scope="module")
def gguf(models, tmp_path_factory) -> Path:
    pytest.importorskip("gguf")
    return write_gguf(models[1], tmp_path_factory.mktemp("gguf") / "teacher.f32.gguf")


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])).logits


def test_a_gguf_file_is_the_model_that_was_written(gguf, models, tmp_path):
    found = files.locate(str(gguf))
    whole = files.load_model(files.locate(str(models[1])))
    loaded = files.load_model(found)
    assert found.id == gguf.name and len(found.sha256) == 64
    torch.testing.assert_close(logits(loaded), logits(whole))
    assert shapes.parameters(found) == sum(p.numel() for p in whole.parameters())
    loaded.save_pretrained(tmp_path / "saved")  # an ordinary model, which a GGUF model of transformers is not
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "saved")), logits(whole))


def test_the_tokenizer_of_a_gguf_file_cuts_text_alike(gguf, models):
    ours, theirs = (files.load_tokenizer(files.locate(str(model))) for model in (gguf, models[1]))
    text = "def f(x):\n    return x**2  # naïve 12345"
    assert ours(text)["input_ids"] == theirs(text)["input_ids"] and ours.eos_token == theirs.eos_token


def test_a_gguf_file_alone_in_a_folder_is_the_model_of_the_folder(gguf, models, tmp_path):
    folder = tmp_path / "one"
    folder.mkdir()
    shutil.copy(gguf, folder)
    found = files.locate(str(folder))
    assert found.id == "one" and found.gguf is not None and found.sha256 == files.locate(str(gguf)).sha256
    # The model's own tokenizer, where it stands beside the file, is used in place of the converted one.
    shutil.copy(models[1] / "tokenizer.json", folder)
    shutil.copy(models[1] / "tokenizer_config.json", folder)
    beside = files.locate(str(folder))
    assert len(files.load_tokenizer(beside)) == len(byte_tokenizer()) < len(files.load_tokenizer(found))
    assert beside.sha256 != found.sha256
    shutil.copy(gguf, folder / "other.gguf")
    with pytest.raises(BadInput, match=r"holds 2 GGUF files .*: name one of them"):
        files.locate(str(folder))


def adapter(base: Path, folder: Path, **changes) -> Path:
    """A LoRA of random weights over a model, as peft saves it; ``changes`` of its configuration."""
    import peft

    torch.manual_seed(5)
    wrapped = peft.get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False, task_type="CAUSAL_LM"),
    )
    wrapped.save_pretrained(folder)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": str(base)} | changes))
    return folder


@pytest.mark.slow
def test_an_adapter_is_merged_into_its_base(models, tmp_path):
    import peft

    folder = adapter(models[0], tmp_path / "lora")
    found = files.locate(str(folder))
    base = files.locate(str(models[0]))
    assert found.id == "lora" and found.sha256 not in ("", base.sha256)
    wrapped = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(models[0]), folder)
    loaded = files.load_model(found)
    torch.testing.assert_close(logits(loaded), logits(wrapped))
    assert (logits(loaded) - logits(files.load_model(base))).abs().max() > 0.1
    assert all(p.requires_grad for p in loaded.parameters())
    loaded.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved/adapter_config.json").exists()
    torch.testing.assert_close(logits(AutoModelForCausalLM.from_pretrained(tmp_path / "saved")), logits(wrapped))
    # The identity is that of the adapter and of its base.
    torch.manual_seed(6)
    (tmp_path / "lora/adapter_model.safetensors").write_bytes(
        (adapter(models[0], tmp_path / "b") / "adapter_model.safetensors").read_bytes()[:-4] + b"abcd"
    )
    assert files.locate(str(folder)).sha256 != found.sha256


def test_an_adapter_brings_its_tokenizer_and_the_rows_it_added(models, tmp_path):
    import peft

    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<a>", "<b>", "<c>", "<d>"]})
    tokenizer.eos_token = "<a>"
    model = AutoModelForCausalLM.from_pretrained(models[0])
    model.resize_token_embeddings(len(tokenizer))
    chosen = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"])
    wrapped = peft.get_peft_model(model, chosen)
    folder = tmp_path / "lora"
    wrapped.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    config = folder / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": str(models[0])}))
    found = files.locate(str(folder))
    assert files.load_tokenizer(found).eos_token == "<a>"
    loaded = files.load_model(found)
    assert loaded.get_input_embeddings().weight.shape[0] == len(tokenizer)
    torch.testing.assert_close(logits(loaded), logits(wrapped))


def test_a_base_is_found_beside_the_adapter(models, tmp_path):
    shutil.copytree(models[0], tmp_path / "base")
    folder = adapter(tmp_path / "base", tmp_path / "lora", base_model_name_or_path="../base")
    assert files.locate(str(folder)).path == folder / "../base"


@pytest.mark.parametrize(
    "change, message",
    [
        ({"base_model_name_or_path": "/nowhere/base"}, "lora needs its base model /nowhere/base: no model folder"),
        ({"base_model_name_or_path": None}, "names no base model; set base_model_name_or_path"),
        ({"base_model_name_or_path": "openai:m@http://127.0.0.1/v1"}, "is a server or an adapter itself"),
        ({"peft_type": "PROMPT_TUNING"}, "of the kind PROMPT_TUNING, which cannot be merged"),
        ({"target_modules": ["no_such"]}, "does not fit its base model: Target modules"),
    ],
)
def test_an_adapter_that_cannot_be_used_says_why(models, tmp_path, change, message):
    folder = adapter(models[0], tmp_path / "lora", **change)
    with pytest.raises(BadInput, match=message):
        files.load_model(files.locate(str(folder)))


def test_an_adapter_of_another_model_is_refused(models, tmp_path):
    folder = adapter(models[1], tmp_path / "lora", base_model_name_or_path=str(models[0]))
    with pytest.raises(BadInput, match=r"lora does not fit its base model: .*size mismatch"):
        files.load_model(files.locate(str(folder)))
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(BadInput, match="holds no weights of the adapter"):
        files.locate(str(folder))


def test_sharded_weights_are_one_model(models, tmp_path):
    whole = files.load_model(files.locate(str(models[0])))
    whole.save_pretrained(tmp_path / "shards", max_shard_size="10KB")
    byte_tokenizer().save_pretrained(tmp_path / "shards")
    parts = sorted((tmp_path / "shards").glob("model-*.safetensors"))
    assert len(parts) > 2
    found = files.locate(str(tmp_path / "shards"))
    torch.testing.assert_close(logits(files.load_model(found)), logits(whole))
    assert shapes.parameters(found) == sum(p.numel() for p in whole.parameters())
    parts[1].unlink()
    with pytest.raises(BadInput, match=f"its index names 1 files of weights that are not there, first {parts[1].name}"):
        files.locate(str(tmp_path / "shards"))
    assert files.locate(str(tmp_path / "shards"), weights=False).path == tmp_path / "shards"


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("consolidated.00.pth", b"x", "weights in Meta's own form"),
        ("model.ckpt.index", b"x", "weights of TensorFlow or Lightning"),
        ("flax_model.msgpack", b"x", "weights of Flax"),
        ("model.onnx", b"x", "an ONNX graph, which cannot be trained"),
        ("readme.md", b"x", "the model folder is incomplete"),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid", "is a pointer of Git LFS"),
        ("model.safetensors.index.json", b"[]", "is not a JSON object"),
        ("model.safetensors.index.json", b"{}", "has no weight_map"),
    ],
)
def test_what_cannot_be_used_says_why(models, tmp_path, file, content, message):
    shutil.copytree(models[0], tmp_path / "m")
    (tmp_path / "m/model.safetensors").unlink()
    (tmp_path / "m" / file).write_bytes(content)
    with pytest.raises(BadInput, match=message):
        files.locate(str(tmp_path / "m"))


@pytest.mark.parametrize(
    "content, message",
    [
        (b"GGUF but not really", "cannot be read as GGUF"),
        (b"", "cannot be read as GGUF"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "is a pointer of Git LFS"),
    ],
)
def test_a_file_that_is_no_gguf_is_refused(tmp_path, content, message):
    pytest.importorskip("gguf")
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(BadInput, match=message):
        files.locate(str(tmp_path / "m.gguf"))


def test_an_architecture_that_transformers_does_not_read_is_named(models, tmp_path):
    pytest.importorskip("gguf")
    file = write_gguf(models[0], tmp_path / "m.gguf", architecture="nosuch")
    with pytest.raises(BadInput, match=r"m.gguf cannot be read as GGUF: .*nosuch"):
        files.locate(str(file))


@pytest.mark.parametrize(
    "number, message",
    [(26, "is quantised as I32, which transformers does not read; give a file with another quantisation"),
     (99, r"a quantisation that the package gguf does not know .*99")],
)  # fmt: skip
def test_a_quantisation_that_is_not_read_is_named_before_any_work(gguf, tmp_path, number, message):
    content, tensor = bytearray(gguf.read_bytes()), b"blk.0.ffn_down.weight"
    kind = content.index(tensor) + len(tensor) + 4 + 2 * 8  # behind the number of its sides and the sides
    assert content[kind] == 0
    content[kind] = number
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(BadInput, match=message):
        files.locate(str(tmp_path / "m.gguf"))


def test_a_gguf_file_that_is_missing_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"no GGUF file at ./none.gguf; give a file, or owner/name/FILE.gguf"):
        files.locate("./none.gguf")


def test_gguf_and_peft_are_named_where_they_are_missing(models, tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    with pytest.raises(BadInput, match=r"needs gguf, .*pip install 'reasoning-distillation-harness\[gguf\]'"):
        files.locate(str(tmp_path / "m.gguf"))


@pytest.mark.slow
def test_a_gguf_teacher_and_an_adapter_student_train(gguf, models, tiny_world, tmp_path, capsys):
    """The trained student is an ordinary folder, whatever its student came as."""
    student, teacher = adapter(models[0], tmp_path / "lora"), tmp_path / "teacher"
    teacher.mkdir()
    for file in (gguf, models[1] / "tokenizer.json", models[1] / "tokenizer_config.json"):
        shutil.copy(file, teacher)
    recipe = tiny_world(
        "[training]\nsteps = 2\nbatch = 2\nmax_tokens = 64\n[rollout]\nmax_new_tokens = 4\n", models=(student, teacher)
    )
    words = ["--task", PARITY, "--recipe", str(recipe), "--results", str(tmp_path / "results"), "--json"]
    assert main(["run", "--method", "kd", "--method", "gkd", "--method", "teacher", *words]) == 0
    records = json.loads(capsys.readouterr().out)["records"]
    assert records[0]["spec"]["student"]["id"] == "lora" and records[0]["spec"]["teacher"]["id"] == "teacher"
    folder = tmp_path / "results/work/trained" / records[0]["training_id"]
    assert not (folder / "adapter_config.json").exists()
    AutoModelForCausalLM.from_pretrained(folder)
    assert main(["run", "--method", "kd", *words]) == 0  # found again: the identity is that of the files
    assert json.loads(capsys.readouterr().out)["records"][0]["reused"]
    assert weight_files.is_adapter(student)


def test_a_hub_that_never_answers_is_one_line_within_seconds(tmp_path, monkeypatch):
    """Its client would look names up again and again, and wait for each."""
    monkeypatch.setattr(data, "HUB_TIMEOUT_S", 0.3)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        hub = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", hub)
        began = time.monotonic()
        for name in ("lab/tiny", "lab/small@v2", "lab/tiny/model.gguf"):  # asked once, whatever is wanted of it
            with pytest.raises(BadInput, match=f"{re.escape(hub)} cannot be reached .no answer|timed out"):
                files.locate(name)
    assert time.monotonic() - began < 2
