"""``harness run --resume ID``: goes on with that very training, and says in what a command asks for another."""

import json
import shutil
from pathlib import Path

import pytest
from test_cli import PARITY, records_of, world  # noqa: F401 (a fixture)

from harness.progress import Reporter

pytestmark = pytest.mark.slow

SHORT = ("--set", "training.steps=4", "--set", "training.checkpoint_every=1")


@pytest.fixture
def left(world, capsys, monkeypatch):  # noqa: F811
    """``(run, results, training id, run id)`` of a gkd run that was interrupted in its third step."""
    run, results, _ = world

    def interrupt(self, stage, done, total, words):
        if stage == "train" and done == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Reporter, "progress", interrupt)
        assert run(*SHORT, method="gkd") == 1
    announced = capsys.readouterr().err
    (scratch,), (note,) = (results / "work/training").iterdir(), (results / "work/begun").iterdir()
    assert (scratch / "checkpoint.pt").is_file() and json.loads((scratch / "spec.json").read_text())["seed"] == 0
    assert f"{note.stem}: gkd on parity" in announced
    return run, results, scratch.name, note.stem


def refused(capsys):
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("harness: ")]
    assert len(lines) == 1 and captured.out == "" and "Traceback" not in captured.err
    return lines[0]


def test_it_goes_on_by_either_id_and_leaves_nothing_behind(left, capsys, monkeypatch):
    run, results, training, run_id = left
    kept = shutil.copytree(results, results.with_name("kept"))
    for i, wanted in enumerate((training, run_id)):
        steps, own = [], Reporter.progress

        def count(self, stage, done, total, words, steps=steps, own=own):
            steps.append(done) if stage == "train" else None
            own(self, stage, done, total, words)

        monkeypatch.setattr(Reporter, "progress", count)
        place = results if i == 0 else kept
        assert run(*SHORT, "--resume", wanted, "--results", str(place), "--json", method="gkd") == 0
        assert json.loads(capsys.readouterr().out)["records"][0]["run_id"] == run_id
        assert steps == [3, 4]  # the checkpoint was that of step 2
        assert not list((place / "work/training").iterdir()) and not list((place / "work/begun").iterdir())
        for ended in (training, run_id):  # what has ended is not interrupted
            assert run(*SHORT, "--resume", ended, "--results", str(place), "--json", method="gkd") == 0
            assert json.loads(capsys.readouterr().out)["records"][0]["reused"]
    assert [p.name for p in records_of(results)] == [p.name for p in records_of(kept)]


def test_a_plan_may_hold_more_than_the_interrupted_training(left, capsys):
    run, _, training, _ = left
    assert run(*SHORT, "--resume", training, "--seed", "0", "1", "--json", method="sft gkd") == 0
    assert len(json.loads(capsys.readouterr().out)["records"]) == 4


OTHER = [
    (
        ("--set", "training.steps=7"),
        "gkd",
        "training.steps is 4 there, 7 here; give --set training.steps=4 to continue",
    ),
    (("--seed", "3"), "gkd", "seed is 0 there, 3 here; give --seed 0 to continue"),
    (("--set", "method.beta=0.25"), "gkd", "method.beta is 0.5 there, 0.25 here; give --set method.beta=0.5 to"),
    (
        ("--set", "rollout.temperature=0.5"),
        "gkd",
        "rollout.temperature is 1.0 there, 0.5 here; give --set rollout.temp",
    ),
    (("--seed", "5", "--set", "training.batch=3"), "gkd", "seed is 0 there, 5 here, training.batch is 2 there, 3 here"),
    ((), "kd", "method.name is gkd there, kd here; give --method gkd to"),
    (("--seed", "1", "2"), "sft kd", "method.name is gkd there"),
    (("--set", "training.weight_decay=0.5"), "sft gkd", "training.weight_decay is 0.0 there, 0.5 here; give --set"),
]


@pytest.mark.parametrize(("words", "method", "said"), OTHER)
@pytest.mark.parametrize("by", ["training", "run"])
def test_another_spec_is_refused_and_said_in_what(left, capsys, words, method, said, by):
    run, results, training, run_id = left
    before = {p: p.read_bytes() for p in results.rglob("*") if p.is_file()}
    wanted = training if by == "training" else run_id
    assert run(*SHORT, *words, "--resume", wanted, method=method) == 2
    line = refused(capsys)
    assert line.startswith(f"harness: --resume {wanted} differs from this command: ") and said in line
    assert line.endswith("or remove --resume")
    assert {p: p.read_bytes() for p in results.rglob("*") if p.is_file()} == before


def test_other_data_and_models_are_named(left, models, tmp_path, capsys):
    run, _, training, _ = left
    other = shutil.copytree(models[0], tmp_path / "other")
    (other / "generation_config.json").write_text('{"eos_token_id": 5}')
    assert run(*SHORT, "--resume", training, "--student", str(other), method="gkd") == 2
    assert "student is student (" in (line := refused(capsys)) and "there, other (" in line
    assert run(*SHORT, "--resume", training, "--set", "data.limit=3", method="gkd") == 2
    assert "prompts is " in (line := refused(capsys)) and "give the prompts it was started with" in line


def test_a_run_is_a_measurement_as_well(left, tmp_path, capsys):
    run, _, training, run_id = left
    other = tmp_path / "other_task.py"
    other.write_text(Path(PARITY).read_text().replace('"parity", "1"', '"parity2", "1"'))
    assert run(*SHORT, "--resume", run_id, method="gkd", task=str(other)) == 2
    assert "task is parity there, parity2 here; give --task parity to" in refused(capsys)
    assert run(*SHORT, "--resume", run_id, "--set", "evaluation.max_new_tokens=3", method="gkd") == 2
    assert "max_new_tokens of parity is " in (line := refused(capsys)) and "3 here" in line
    assert run(*SHORT, "--resume", training, method="gkd", task=str(other)) == 0  # a training has no task


@pytest.mark.parametrize("wanted", ["gkd-0", "", ".", "..", "../training", "a/b", "*"])
def test_what_is_not_there_is_answered_with_what_is(left, capsys, wanted):
    run, _, training, run_id = left
    assert run(*SHORT, f"--resume={wanted}", method="gkd") == 2
    line = refused(capsys)
    assert "has no such id" in line and training in line and run_id in line


def test_where_nothing_was_interrupted(world, capsys):  # noqa: F811
    run, results, _ = world
    assert run("--resume", "gkd-0123", method="gkd") == 2
    assert "--resume gkd-0123: nothing was interrupted in" in refused(capsys) and not results.exists()


@pytest.mark.parametrize("damage", [lambda f: f.unlink(), lambda f: f.write_text("{"), lambda f: f.write_text("[]")])
def test_a_spec_that_cannot_be_read_refuses_only_what_it_cannot_compare(left, capsys, damage):
    run, results, training, _ = left
    damage(results / "work/training" / training / "spec.json")
    assert run(*SHORT, "--resume", training, "--seed", "9", method="gkd") == 2
    assert "its settings cannot be read" in refused(capsys)
    assert run(*SHORT, "--resume", training, method="gkd") == 0  # the id itself says that it is the same


def test_a_note_that_cannot_be_read_is_said(left, capsys):
    run, results, _, run_id = left
    for damaged in ("{", "[]", "{}", ""):
        (results / "work/begun" / f"{run_id}.json").write_text(damaged)
        assert run(*SHORT, "--resume", run_id, method="gkd") == 2
        assert "its settings cannot be read; give its command without --resume" in refused(capsys)
    assert run(*SHORT, method="gkd") == 0


def test_a_dry_run_checks_it_too(left, capsys):
    run, _, training, _ = left
    assert run(*SHORT, "--resume", training, "--dry-run", "--seed", "9", method="gkd") == 2
    assert "seed is 0 there, 9 here" in refused(capsys)
    assert run(*SHORT, "--resume", training, "--dry-run", method="gkd") == 0
