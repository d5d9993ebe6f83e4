"""``harness export --push`` against a hub on this machine: one commit, private, or one line and nothing."""

import json
import shutil
import stat

import pytest
import upload_hub
from huggingface_hub import ModelCard
from sample_records import make_record, make_rows

from harness import model_card
from harness.cli import main
from harness.records.store import Store
from harness.reports.export import student


@pytest.fixture
def hub(monkeypatch):
    with upload_hub.serving() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        monkeypatch.setenv("HF_TOKEN", upload_hub.TOKEN)
        # Weights go through LFS: the server of the newer protocol (Xet) is no small one to imitate.
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        yield found


@pytest.fixture(scope="module")
def trained(tmp_path_factory, models):
    """A results folder with one record and its student, whose weights only their owner can read."""
    root = tmp_path_factory.mktemp("results")
    store = Store(root)
    data = {"prompts": {"source": "openai/gsm8k,config=main,split=train,revision=e53f048", "examples": 4}}
    kept = make_record("kd", "amc23", student="Qwen/Qwen2.5-0.5B@abc", data=data)
    store.add(kept, make_rows())
    folder = root / "work/trained" / kept["training_id"]
    shutil.copytree(models[0], folder)
    (folder / "training.json").write_text("{}")
    (folder / "model.safetensors").chmod(0o600)
    return root, kept["run_id"]


def push(capsys, *words):
    code = main(["export", *map(str, words)])
    told = capsys.readouterr()
    return code, told.out.strip(), told.err


def test_a_student_is_pushed_whole_private_and_in_one_commit(hub, trained, capsys):
    root, run_id = trained
    code, out, err = push(capsys, run_id, "--results", root, "--push", "me/student", "--license", "apache-2.0")
    assert (code, out) == (0, f"{hub.url}/me/student"), err
    made = hub.repositories["models/me/student"]
    assert made["private"] is True and len(made["commits"]) == 1 and "harness" in made["commits"][0]
    weights = (root / "work/trained").rglob("model.safetensors")
    assert made["files"]["model.safetensors"] == next(weights).read_bytes()
    found = ModelCard(made["files"]["README.md"].decode()).data
    assert (found.license, found.base_model, found.datasets) == ("apache-2.0", "Qwen/Qwen2.5-0.5B", ["openai/gsm8k"])
    (result,) = found.eval_results
    assert {"correct", "total", "interval_95"} <= set(result.metric_args)
    # The name is taken now; a second commit is made only where it is asked for.
    code, _, err = push(capsys, run_id, "--results", root, "--push", "me/student")
    assert code == 2 and "the name is taken" in err and "--again" in err and len(made["commits"]) == 1
    assert push(capsys, run_id, "--results", root, "--push", "me/student", "--again")[0] == 0
    assert len(made["commits"]) == 2


def test_results_are_pushed_as_a_data_set(hub, trained, capsys):
    code, out, _ = push(capsys, "--results", trained[0], "--push", "me/results", "--public", "--json")
    assert code == 0 and json.loads(out) == {"pushed": f"{hub.url}/datasets/me/results"}
    made = hub.repositories["datasets/me/results"]
    assert made["private"] is False and set(made["files"]) >= {"records.parquet", "completions.parquet", "README.md"}


@pytest.mark.parametrize(
    ("name", "change", "code", "reason"),
    [
        ("me/new", {"HF_TOKEN": "hf_other"}, 1, "refuses the token (401)"),
        ("me/new", {"HF_TOKEN": None}, 2, "hf auth login"),
        ("me/new", {"HF_ENDPOINT": "http://127.0.0.1:9"}, 1, "does not answer"),
        ("student", {}, 2, "is not owner/name"),
        ("me/a student", {}, 2, "is not owner/name"),
    ],
)
def test_what_stops_a_push_is_one_line(hub, trained, capsys, monkeypatch, tmp_path, name, change, code, reason):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    for key, value in change.items():
        monkeypatch.delenv(key) if value is None else monkeypatch.setenv(key, value)
    found, out, err = push(capsys, trained[1], "--results", trained[0], "--push", name)
    assert (found, out) == (code, "") and reason in err and err.count("\n") == 1
    assert not hub.repositories


@pytest.mark.parametrize("step", ["/create", "/objects/batch", "/put/", "/commit/"])
def test_a_hub_that_fails_midway_shows_no_file(hub, trained, capsys, monkeypatch, step):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda _: None)
    hub.fail = step
    code, _, err = push(capsys, trained[1], "--results", trained[0], "--push", "me/new")
    assert code == 1 and "nothing was pushed to me/new" in err and err.count("\n") == 1, err
    assert all(not made["commits"] and set(made["files"]) == {".gitattributes"} for made in hub.repositories.values())
    hub.fail = ""  # the empty repository of the failed push is no name that is taken
    assert push(capsys, trained[1], "--results", trained[0], "--push", "me/new")[0] == 0


def test_an_exported_student_can_be_read_by_others(trained, tmp_path):
    out = student.export(Store(trained[0]), trained[1], tmp_path / "out")
    modes = {stat.S_IMODE(file.stat().st_mode) for file in out.rglob("*") if file.is_file()}
    assert modes == {stat.S_IMODE((out / "README.md").stat().st_mode)} and modes != {0o600}
    text = (out / "README.md").read_text()
    assert "license" not in text and model_card.UNKNOWN_LICENCE in text
    assert model_card.licence_of("micro:student") == "apache-2.0" and model_card.licence_of("folder") is None


@pytest.mark.parametrize(
    "words",
    [[], ["--public", "--out", "x"], ["--license", "mit", "--out", "x"], ["--push", "a/b", "--out", "x.parquet"]],
)
def test_options_that_do_not_belong_together_are_refused(words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert push(capsys, *words)[0] == 2 and not list(tmp_path.iterdir())
