"""Exports and trackers: what other tools read says what the records say; trained students load anywhere."""

import json
from pathlib import Path

import pytest
from board_site import ATTACK, results
from test_cli import PARITY, records_of, world  # noqa: F401 (a fixture)

from harness.cli import main
from harness.errors import RunFailed
from harness.records.curves import Tracking, check_trackers


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return results(tmp_path_factory.mktemp("results"))


def test_parquet_holds_every_record_and_completion(store, tmp_path):
    import datasets
    import pandas

    import harness

    out = tmp_path / "out"
    assert main(["export", "--results", str(store.root), "--out", str(out)]) == 0
    records, completions = (pandas.read_parquet(out / f"{name}.parquet") for name in ("records", "completions"))
    assert list(records.columns) == list(harness.load_results(store.root).columns) and len(records) == 18
    assert len(completions) == 18 * 6 and set(completions.run_id) == set(records.run_id)
    assert completions.text[0] == ATTACK and completions.text[1] == "half a \ufffd sign"
    assert {"prompt", "reference", "words"} <= set(completions.columns)
    assert completions.groupby("run_id").score.sum().to_dict() == records.set_index("run_id").correct.to_dict()
    read = datasets.load_dataset(str(out), "completions", cache_dir=str(tmp_path / "cache"))["train"]
    assert read.num_rows == len(completions)
    alone = tmp_path / "records.parquet"
    assert main(["export", "--results", str(store.root), "--out", str(alone), "--json"]) == 0
    assert len(pandas.read_parquet(alone)) == 18


def test_datasets_load_from_disk(store, tmp_path):
    import datasets

    out = tmp_path / "out"
    assert main(["export", "--results", str(store.root), "--format", "datasets", "--out", str(out)]) == 0
    read = datasets.load_from_disk(str(out))
    assert read["records"].num_rows == 18 and read["completions"].num_rows == 108
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_place_that_is_taken_is_left_alone(store, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/file").write_text("")
    known = sorted(p.stem for p in store.records_dir.rglob("*.json"))
    for words in (
        ["--out", str(tmp_path / "mine")],
        ["--out", str(tmp_path / "x.parquet"), "--format", "datasets"],
        ["--out", str(tmp_path / "x"), known[0]],
        ["--out", str(tmp_path / "x"), next(name for name in known if name.startswith("untouched"))],
        ["--out", str(tmp_path / "x"), "nobody"],
        ["--out", str(tmp_path / "x"), known[0], "--format", "parquet"],
        ["--out", str(tmp_path / "x"), "--results", str(tmp_path / "none")],
    ):
        assert main(["export", "--results", str(store.root), *words]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["mine"] and (tmp_path / "mine/file").exists()


def test_a_trained_student_has_a_card_and_loads_anywhere(world, tmp_path, capsys):  # noqa: F811
    from huggingface_hub import ModelCard
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run, folder, _ = world
    other = tmp_path / "other_task.py"
    other.write_text(Path(PARITY).read_text().replace('"parity", "1"', '"parity2", "1"'))
    assert run("--json", method="vcrd") == 0
    (record,) = json.loads(capsys.readouterr().out)["records"]
    assert run(method="vcrd", task=str(other)) == 0  # a second score enters the same card
    capsys.readouterr()
    out = tmp_path / "student"
    assert main(["export", record["run_id"], "--results", str(folder), "--out", str(out)]) == 0
    for place in (folder / "work/trained" / record["training_id"], out):
        text = (place / "README.md").read_text("utf-8")
        found = ModelCard.load(place / "README.md").data.eval_results
        assert sorted(one.dataset_type for one in found) == ["parity", "parity2"]
        (mine,) = (one for one in found if one.dataset_type == "parity")
        assert mine.metric_value == record["score"] and mine.metric_args["interval_95"] == record["interval"]
        assert mine.metric_args["total"] == record["counts"]["total"] == 4
        assert "reconstruction from the public abstract" in text and "g(kappa" in text
        assert "prompts.jsonl (12 examples)" in text and str(tmp_path) not in text
    model, tokenizer = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    answer = model.generate(**tokenizer("ab 1:", return_tensors="pt"), max_new_tokens=2)
    assert answer.shape[0] == 1
    assert [p.name for p in (folder / "curves").iterdir()] == [f"{record['training_id']}.json"]


def test_a_tracker_sees_every_step_and_decides_nothing(world, capsys):  # noqa: F811
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", reason="tensorboard is not installed"
    )
    run, folder, _ = world
    assert run("--json", "--track", "tensorboard", method="kd") == 0
    (record,) = json.loads(capsys.readouterr().out)["records"]
    place = folder / "work/tracking" / record["training_id"] / "reasoning-distillation"
    events = accumulator.EventAccumulator(str(place)).Reload()
    facts = json.loads((folder / "work/trained" / record["training_id"] / "training.json").read_text())
    seen = [(event.step, pytest.approx(event.value, rel=1e-6)) for event in events.Scalars("loss")]
    assert seen == [(row["step"], row["loss"]) for row in facts["curve"]] and len(seen) == 2
    assert "track" not in json.dumps(record["spec"])
    assert run("--json", method="kd") == 0
    assert json.loads(capsys.readouterr().out)["records"][0]["reused"]


def test_a_tracker_that_is_not_there_is_one_line(world, capsys, monkeypatch):  # noqa: F811
    run, folder, _ = world
    monkeypatch.setattr("accelerate.tracking.get_available_trackers", list)
    for name, message in (
        ("wandb", "pip install wandb"),
        ("comet_ml", "pip install comet-ml"),
        ("tensorbord", "did you mean tensorboard"),
    ):
        assert run("--track", name) == 2
        captured = capsys.readouterr()
        assert message in captured.err and captured.err.count("\n") == 1 and not folder.exists()
    assert check_trackers([]) == ()


class Failing:
    """An accelerator whose trackers fail at the named call."""

    def __init__(self, call):
        self.call = call

    def __getattr__(self, name):
        def answer(*_, **__):
            if name == self.call:
                raise ConnectionError("no route\nto host")

        return answer


def test_a_tracker_that_fails_costs_a_warning_not_the_training(tmp_path):
    with pytest.raises(RunFailed, match="wandb did not start: no route"):
        Tracking(("wandb",), tmp_path).begin(Failing("init_trackers"), "run", {})
    tracking = Tracking(("wandb",), tmp_path)
    tracking.begin(Failing("log"), "run", {"training": {"steps": 2}, "teacher": None})
    tracking.log({"loss": 1.0}, 1)
    tracking.log({"loss": 1.0}, 2)
    tracking.end()
    assert tracking.warnings == ["--track wandb stopped: no route"]
    silent = Tracking()
    silent.begin(None, "run", {})
    silent.log({}, 1)
    silent.end()
    assert silent.options("run") == {} and silent.warnings == []
