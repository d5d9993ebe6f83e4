"""The command line from end to end: records, their reuse, one clear line and exit code 2 for bad input."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import tiny_model

from harness.cli import main

pytestmark = pytest.mark.slow

PARITY = str(Path(__file__).parent / "plugin/parity_plugin.py")
HALFWAY = str(Path(__file__).parent / "plugin/halfway_plugin.py")


@pytest.fixture
def world(tiny_world, tmp_path):
    """A recipe on random models, a task by path with data, and a results folder: ``(run, results, recipe)``."""
    recipe = tiny_world(
        "[training]\nsteps = 2\nbatch = 2\nmax_tokens = 64\n[rollout]\nmax_new_tokens = 6\n"
        "[teacher_text]\nmax_new_tokens = 6\n"
    )
    results = tmp_path / "results"

    def run(*words, method="sft", task=PARITY):
        methods = [word for name in method.split() for word in ("--method", name)]
        return main(["run", *methods, "--task", task, "--recipe", str(recipe), "--results", str(results), *words])

    return run, results, recipe


def records_of(results):
    return sorted((results / "records").rglob("*.json"))


def test_a_run_is_recorded_once_and_returned_after(world, capsys):
    run, results, _ = world
    assert run("--json", method="sft kd") == 0
    captured = capsys.readouterr()
    first = json.loads(captured.out)["records"]
    assert [r["method"]["name"] for r in first] == ["sft", "kd"] and not any(r["reused"] for r in first)
    assert all(r["counts"]["total"] == 4 and 0 <= r["score"] <= 1 for r in first)
    assert first[0]["cost"]["teacher_forward_tokens"] == 0 < first[1]["cost"]["teacher_forward_tokens"]
    files = {path: path.read_bytes() for path in records_of(results)}
    assert len(files) == 2

    assert run("--json", method="sft kd") == 0
    again = json.loads(capsys.readouterr().out)["records"]
    assert all(r["reused"] for r in again) and [r["run_id"] for r in again] == [r["run_id"] for r in first]
    assert {path: path.read_bytes() for path in records_of(results)} == files

    assert run("--json", "--again") == 0
    (third,) = json.loads(capsys.readouterr().out)["records"]
    assert third["supersedes"] == first[0]["run_id"] and third["attempt"] == 1
    assert third["score"] == first[0]["score"] and len(records_of(results)) == 3


def test_a_second_task_never_trains_again(world, tmp_path, capsys, monkeypatch):
    run, _, _ = world
    assert run() == 0
    other = tmp_path / "other_task.py"
    other.write_text(Path(PARITY).read_text().replace('"parity", "1"', '"parity2", "1"'))
    monkeypatch.setattr("harness.training.loop.train", lambda *_: pytest.fail("trained a second time"))
    assert run(task=str(other)) == 0
    assert "parity2" in capsys.readouterr().out


def test_seeds_settings_and_methods_by_path(world, capsys):
    run, _, _ = world
    settings = ("--set", "method.end=0.25", "training.clip=1.0")  # one --set takes several
    assert run("--seed", "3", "4", *settings, "--json", method=HALFWAY) == 0
    found = json.loads(capsys.readouterr().out)["records"]
    assert [r["seed"] for r in found] == [3, 4] and found[0]["method"]["settings"] == {"end": 0.25}
    assert found[0]["spec"]["training"]["clip"] == 1.0
    assert found[0]["spec"]["method"]["origin"].startswith("file sha256:")


def test_stored_completions_grade_to_the_recorded_score(world, capsys):
    run, results, _ = world
    assert run("--json") == 0
    (record,) = json.loads(capsys.readouterr().out)["records"]
    samples = results / record["completions"]["file"]
    assert main(["grade", "--task", PARITY, "--samples", str(samples), "--json"]) == 0
    (graded,) = json.loads(capsys.readouterr().out)["records"]
    assert graded["score"] == record["score"] and graded["counts"] == record["counts"]


def test_show_and_table_read_what_was_recorded(world, capsys):
    run, results, _ = world
    assert run("--json") == 0
    (record,) = json.loads(capsys.readouterr().out)["records"]
    assert main(["show", record["run_id"][:8], "--results", str(results), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["content_sha256"] == record["content_sha256"]
    for style in ("md", "csv", "json"):
        assert main(["table", "--results", str(results), "--format", style]) == 0
        assert "sft" in capsys.readouterr().out
    assert main(["show", record["run_id"], "--results", str(results)]) == 0
    assert "counts" in capsys.readouterr().out


def test_an_interrupted_run_goes_on_from_the_last_stage(world, capsys, monkeypatch):
    run, results, _ = world
    with monkeypatch.context() as patch:
        patch.setattr("harness.evaluation.evaluate.complete", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert run(method="kd") == 1
    assert "interrupted" in capsys.readouterr().err and not records_of(results)
    monkeypatch.setattr("harness.training.loop.train", lambda *_: pytest.fail("the training stage was complete"))
    assert run(method="kd") == 0 and len(records_of(results)) == 1


BAD = [
    (["--set", "method.beta=2"], "gkd", "beta=2.0 is outside [0, 1]"),
    (["--set", "method.beta=warm"], "gkd", "'warm' is not a number"),
    (["--set", "method.bata=1"], "gkd", "did you mean beta"),
    (["--set", "method.beta=1"], "sft", "takes no settings"),
    (["--set", "training.steps=2.5"], "sft", "is not a whole number"),
    (["--set", "trainig.steps=2"], "sft", "did you mean training"),
    (["--set", "training.stepz=2"], "sft", "did you mean steps"),
    (["--set", "steps"], "sft", "is not key=value"),
    (["--seed", "-1"], "sft", "'-1' is not a whole number from 0"),
    (["--device", "tpu"], "sft", "is not cpu, cuda"),
    ([], "gdk", "unknown method 'gdk'; did you mean gkd"),
    ([], "kd@nothing", "has no variants"),
    ([], "nowhere/method.py", "no method file"),
    (["--student", "./nowhere"], "sft", "no model folder"),
    (["--recipe", "mikro"], "sft", "did you mean micro"),
    (["--recipe", "nowhere.toml"], "sft", "no recipe file"),
    (["--set", "method.validity=verifier"], "vcrd", "step checker"),
    (["--bogus"], "sft", "unknown option of harness run '--bogus'"),
]


@pytest.mark.parametrize(("words", "method", "message"), BAD)
def test_bad_input_is_one_line_and_writes_nothing(world, capsys, words, method, message):
    run, results, _ = world
    assert run(*words, method=method) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and captured.out == ""
    assert not results.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[training\nsteps = 1", "line 1"),
        ("[training]\nsteps = 'many'", "is not a whole number"),
        ("[trainings]\nsteps = 1", "did you mean training"),
        ("world = 'moon'", "must be real or micro"),
        ("[method]\nbeta = 1", "[method.NAME]"),
        ("[method.gkd]\nbeta = 7", "outside [0, 1]"),
    ],
)
def test_a_malformed_recipe_names_the_place(world, tmp_path, capsys, content, message):
    run, results, _ = world
    (tmp_path / "bad.toml").write_text(content)
    assert run("--recipe", str(tmp_path / "bad.toml"), method="gkd") == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and not results.exists()


def test_models_that_cannot_work_are_refused_before_any_work(world, models, tmp_path, capsys):
    run, _, _ = world
    broken = tmp_path / "broken"
    tiny_model(broken, 0)
    (broken / "model.safetensors").write_bytes((broken / "model.safetensors").read_bytes()[:999])
    assert run("--student", str(broken)) == 2
    assert "broken cannot be loaded" in capsys.readouterr().err

    (tmp_path / "empty").mkdir()
    assert run("--student", str(tmp_path / "empty")) == 2
    assert "config.json is missing" in capsys.readouterr().err

    other = tmp_path / "other"
    tiny_model(other, 0)
    words = (other / "tokenizer.json").read_text("utf-8")
    words = words.replace('"a":', '"spare":', 1).replace('"b":', '"a":', 1).replace('"spare":', '"b":', 1)
    (other / "tokenizer.json").write_text(words, "utf-8")
    assert run("--teacher", str(other), method="kd") == 2
    error = capsys.readouterr().err
    assert "tokenizers" in error and "2 tokens differ" in error and "'a' has id" in error
    assert run("--teacher", str(other), method="seqkd") == 0  # its teacher is only asked for text


def test_missing_data_names_both_ways_to_get_it(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    monkeypatch.setenv("HARNESS_HUB", "http://127.0.0.1:9")
    assert main(["run", "--method", "untouched", "--task", "amc23@real", "--results", str(tmp_path / "r")]) == 2
    error = capsys.readouterr().err
    assert "$HARNESS_DATA/amc23/test.jsonl" in error and "http://127.0.0.1:9/QwenLM/Qwen2.5-Math/" in error


def test_unwritable_results_are_refused(world, capsys, tmp_path):
    run, _, _ = world
    (tmp_path / "file").write_text("")
    assert run("--results", str(tmp_path / "file")) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_help_and_lists_load_no_heavy_library():
    listed = (["list", "methods"], ["list", "tasks"], ["list", "recipes"])
    helped = ([name, "--help"] for name in ("run", "board", "compare", "reproduce"))
    for words in (["--help"], *listed, *helped):
        code = (
            "import sys\nfrom harness.cli import main\n"
            f"try:\n    main({words!r})\nexcept SystemExit:\n    pass\n"
            "names = 'torch transformers pandas lm_eval evalplus numpy matplotlib jinja2'\n"
            "heavy = set(names.split()) & set(sys.modules)\n"
            "sys.exit(f'imported {heavy}' if heavy else 0)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, timeout=60)
        assert done.returncode == 0, done.stderr


def test_cards_say_what_a_number_rests_on(capsys):
    assert main(["show", "method", "vcrd"]) == 0
    text = capsys.readouterr().out
    assert "reconstruction" in text and "method.kappa" in text and "default:" in text
    assert main(["show", "method", "gkd", "--json"]) == 0
    assert {s["name"] for s in json.loads(capsys.readouterr().out)["settings"]} >= {"beta", "on_policy"}
    assert main(["show", "task", "amc23", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["dataset"]["n"] == 40


def test_a_plan_may_be_for_a_machine_that_is_elsewhere(world, capsys, monkeypatch):
    run, results, _ = world
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run("--device", "cuda", "--dry-run", method="kd") == 0
    assert "A100-80GB (assumed: no CUDA device is visible here)" in capsys.readouterr().out
    assert run("--device", "cuda", method="kd") == 2 and not results.exists()
    assert "no CUDA device is visible here" in capsys.readouterr().err
