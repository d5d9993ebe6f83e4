"""A model that brings code is refused by name; the code runs only where a setting says so, and the record says it."""

import json
import os
import pickle
import shutil
from pathlib import Path

import pytest

from harness import recipe
from harness.cli import main
from harness.errors import BadInput
from harness.grading.judges.answering import LocalModel, LocalOptions
from harness.models import files

PARITY = str(Path(__file__).parent / "plugin/parity_plugin.py")

MODEL = """
from pathlib import Path
from transformers import LlamaConfig, LlamaForCausalLM
Path({mark!r}).write_text("ran")
class OwnConfig(LlamaConfig):
    model_type = {kind!r}
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


@pytest.fixture
def own(models, tmp_path):
    """``make(kind, file)``: a model folder whose ``auto_map`` names a module that writes ``ran`` when imported."""

    def make(kind="own_llama", file="config.json", auto_map=None):
        folder = shutil.copytree(models[0], tmp_path / "own", dirs_exist_ok=True)
        mark = tmp_path / "ran"
        (folder / "own_model.py").write_text(MODEL.format(mark=str(mark), kind=kind))
        content = json.loads((folder / file).read_text())
        content["auto_map"] = auto_map or {
            "AutoConfig": "own_model.OwnConfig",
            "AutoModelForCausalLM": "own_model.OwnModel",
        }
        if file == "config.json":
            content["model_type"] = kind
        (folder / file).write_text(json.dumps(content))
        return folder, mark

    return make


TOKENIZER = {"AutoTokenizer": ["own_model.OwnTokenizer", None]}


@pytest.mark.parametrize(
    ("kind", "file", "auto_map"),
    [
        ("own_llama", "config.json", None),
        ("llama", "config.json", None),  # transformers knows the type: its class is not what the folder asks for
        ("llama", "tokenizer_config.json", TOKENIZER),
    ],
)
@pytest.mark.parametrize("role", ["student", "teacher", "judge", "check"])
def test_code_of_a_model_is_refused_by_name_and_never_runs(
    own, tmp_path, capsys, monkeypatch, kind, file, auto_map, role
):
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on stdin"))
    folder, mark = own(kind, file, auto_map)
    words = {
        "student": ["run", "--method", "sft", "--task", "amc23", "--student", str(folder)],
        "teacher": ["run", "--method", "kd", "--task", "amc23", "--teacher", str(folder)],
        "judge": ["run", "--method", "sft", "--task", "alpaca_eval", "--judge", f"hf:{folder}"],
        "check": ["check", "--model", str(folder)],
    }[role]
    more = [] if role == "check" else ["--recipe", "micro", "--results", str(tmp_path / "results")]
    if role == "judge":
        with pytest.raises(BadInput, match=r"brings code of its own .*trust_remote_code=true"):
            LocalModel(str(folder), LocalOptions())
    else:
        assert main([*words, *more]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert f"auto_map in {file}" in line and "--set models.trust_remote_code=true" in line
    assert not mark.exists() and not (tmp_path / "results").exists()


def test_a_setting_runs_it_and_the_identity_says_so(own, tmp_path):
    folder, mark = own()
    found = files.locate(str(folder), trust=True)
    assert found.identity() == {"id": "own", "sha256": found.sha256, "trust_remote_code": True}
    assert type(files.load_model(found)).__name__ == "OwnModel" and mark.read_text() == "ran"
    judge = LocalModel(str(folder), LocalOptions(trust_remote_code=True))
    assert judge.identity()["trust_remote_code"] is True
    (folder / "own_model.py").write_text((folder / "own_model.py").read_text() + "\n# edited")
    assert files.locate(str(folder), trust=True).sha256 != found.sha256


def test_the_setting_leaves_every_other_model_as_it_is(models):
    plain, trusted = (files.locate(str(models[0]), trust=trust) for trust in (False, True))
    assert plain == trusted and "trust_remote_code" not in trusted.identity()
    assert not recipe.load("micro").models.trust_remote_code


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", {"auto_map": {"AutoConfig": "other/repository--own_model.OwnConfig"}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": [None, "other/repository--own.Fast"]}}),
        ("config.json", {"attn_implementation": "other/kernel"}),
    ],
)
def test_code_of_another_repository_is_refused_whatever_is_set(own, file, content):
    folder, mark = own()
    (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | content))
    for trust in (False, True):
        with pytest.raises(BadInput, match="takes code from elsewhere"):
            files.locate(str(folder), trust=trust)
    assert not mark.exists()


@pytest.mark.parametrize("content", ["[" * 100_000, "[]", "{", '{"a": ' + "1" * 5000 + "}", "\x00"])
def test_a_damaged_configuration_is_one_line(own, content):
    folder, _ = own()
    (folder / "config.json").write_text(content)
    with pytest.raises(BadInput, match=r"config\.json: "):
        files.locate(str(folder))


class Act:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_pickle_in_place_of_weights_does_not_run(models, tmp_path):
    import torch

    folder = shutil.copytree(models[0], tmp_path / "pickled")
    weights = folder / "pytorch_model.bin"
    state = files.load_model(files.locate(str(models[0]))).state_dict()
    (folder / "model.safetensors").unlink()
    torch.save(state, weights)
    loaded = files.load_model(files.locate(str(folder))).state_dict()  # sound ones are read as they are
    assert all(torch.equal(loaded[name], state[name]) for name in state)

    for write in (
        lambda act: torch.save({"lm_head.weight": act}, weights),
        lambda act: weights.write_bytes(pickle.dumps(act)),
    ):
        write(Act(str(tmp_path / "ran")))
        with pytest.raises(BadInput, match="cannot be loaded"):
            files.load_model(files.locate(str(folder)))
        assert not (tmp_path / "ran").exists()


def test_a_run_with_code_is_recorded_and_its_command_says_so(own, models, prompts_file, tmp_path, monkeypatch, capsys):
    folder, _ = own()
    (tmp_path / "data/parity").mkdir(parents=True)
    (tmp_path / "data/parity/test.jsonl").write_text("".join(f'{{"number": {i}}}\n' for i in range(4)))
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    (tmp_path / "tiny.toml").write_text(
        f"[models]\nstudent = '{folder}'\nteacher = '{models[1]}'\n[data]\nlabelled = '{prompts_file}'\n"
        "[training]\nsteps = 1\nbatch = 2\nmax_tokens = 64\n"
    )
    place = ["--recipe", str(tmp_path / "tiny.toml"), "--results", str(tmp_path / "results")]
    run = ["run", "--method", "sft", "--task", PARITY, *place, "--json"]
    assert main(run) == 2  # nothing of the folder runs before the setting is given
    assert "auto_map" in capsys.readouterr().err and not (tmp_path / "results/records").exists()
    assert main([*run, "--set", "models.trust_remote_code=true"]) == 0
    (record,) = json.loads(capsys.readouterr().out)["records"]
    assert record["spec"]["student"]["trust_remote_code"] is True
    assert list((tmp_path / "results/work/trained").glob("sft-*/own_model.py"))  # the student keeps its code
    given = ["--task", PARITY, "--student", str(folder), "--results", str(tmp_path / "results")]
    main(["show", record["run_id"], "--command", *given])
    assert "models.trust_remote_code=true" in capsys.readouterr().out
