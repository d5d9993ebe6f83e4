"""Plans that cannot fit are refused before any work; --dry-run tells what would be done and writes nothing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from harness.cli import main
from harness.estimate import memory_check, shapes
from harness.evaluation import measurement
from harness.plan import RunRequest, prepare

pytestmark = pytest.mark.slow

PARITY = str(Path(__file__).parent / "plugin/parity_plugin.py")
SMALL = [
    "training.steps=2",
    "training.batch=4",
    "data.limit=4",
    "rollout.max_new_tokens=8",
    "teacher_text.max_new_tokens=8",
]


def test_the_forecast_knows_the_size_of_a_chunk():
    pass


@pytest.fixture
def words(tmp_path, monkeypatch):
    (tmp_path / "data/parity").mkdir(parents=True)
    (tmp_path / "data/parity/test.jsonl").write_text("".join(f'{{"number": {i}}}\n' for i in range(4)))
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "data"))
    settings = [word for setting in SMALL for word in ("--set", setting)]
    return ["run", "--task", PARITY, "--results", str(tmp_path / "results"), *settings]


def plan_of(method="gkd", tmp_path=Path("nowhere"), *settings):
    return prepare(RunRequest(methods=[method], tasks=["humaneval"], settings=[*SMALL, *settings], results=tmp_path))


def test_a_plan_becomes_numbers(tmp_path):
    plan = plan_of("gkd", tmp_path)
    work = memory_check.work_of(plan, plan.trainings[0].method)
    assert (work.steps, work.batch, work.micro_rows, work.response_tokens) == (2, 4, 4, 8)
    assert work.student.layers == 2 and work.teacher.parameters > work.student.parameters > 100_000
    assert 0 < work.on_policy <= 1 and work.teacher_texts == 4 and work.signal
    sft = plan_of("sft", tmp_path)
    work = memory_check.work_of(sft, sft.trainings[0].method)
    assert work.teacher is None and work.on_policy == 0 == work.teacher_texts and work.response_tokens > 8


def test_parameters_are_counted_in_the_files(tmp_path):
    from harness.models.files import load_model

    plan = plan_of("sft", tmp_path)
    loaded = sum(p.numel() for p in load_model(plan.student).parameters())
    assert shapes.parameters(plan.student) == shapes.shape_of(plan.student).parameters == loaded


def test_a_batch_that_cannot_fit_is_refused_before_any_work(words, tmp_path, capsys):
    many = ["--set", "training.batch=2000000", "--set", "training.micro_batch=2000000"]
    assert main([*words, "--method", "sft", *many]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "GB too little; lower training.micro_batch from 2000000 to " in error
    assert not (tmp_path / "results").exists()
    assert "training.gradient_checkpointing=true saves" in error
    fitting = error.partition("to ")[2].partition(";")[0]
    plan = plan_of("sft", tmp_path / "r", "training.batch=2000000", f"training.micro_batch={fitting}")
    memory_check.check(plan, lambda line: None)


def test_a_generation_that_cannot_fit_names_its_own_setting(tmp_path, monkeypatch):
    plan = plan_of("gkd", tmp_path, "training.batch=64", "training.micro_batch=1", "evaluation.batch=64")
    device = memory_check.device_of("cpu")
    standing = memory_check.estimates(plan)["gkd"]
    room = standing.standing + standing.memory["generation"] / 2
    monkeypatch.setattr(memory_check, "device_of", lambda name: replace(device, memory=room))
    monkeypatch.setattr("harness.estimate.resources.CHUNK_ELEMENTS", 1)
    with pytest.raises(ValueError, match="lower"):
        memory_check.check(plan, lambda line: None)


def test_more_processes_than_devices_or_prompts(tmp_path, monkeypatch):
    plan, said = plan_of("sft", tmp_path), []
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    with pytest.raises(ValueError, match=r"training\.batch=4 over 8 processes"):
        memory_check.check(plan, said.append)
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1000")
    memory_check.check(plan, said.append)
    assert "1000 processes share" in said[-1]
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    plan.device = "cuda"
    with pytest.raises(ValueError, match="1000 processes on a machine with 2 CUDA devices; launch --num_processes 2"):
        memory_check.check(plan, said.append)


def test_a_dry_run_tells_everything_and_writes_nothing(words, tmp_path, capsys):
    again = [*words, "--method", "kd", "--method", "untouched", "--seed", "0", "1", "--dry-run"]
    assert main(again) == 0
    out = capsys.readouterr().out
    assert out.count("to do") == 4 and "training kd" in out and "assumed:" in out
    assert not (tmp_path / "results").exists()
    assert main([*words, "--method", "kd", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)["records"]
    assert main([*again, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    recorded = [run["recorded"] for run in told["runs"] if run["recorded"]]
    assert recorded == [record["run_id"]] and told["refusal"] is None
    assert told["estimates"]["kd"]["peak"] > 0 and set(told["estimates"]) == {"kd"}


def test_the_intended_identity_is_the_one_that_is_recorded(words, capsys, tmp_path):
    assert main([*words, "--method", "untouched", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)["records"]
    plan = prepare(RunRequest(["untouched"], [PARITY], settings=SMALL, results=tmp_path / "results"))
    ((training, task, run_id),) = measurement.cells(plan)
    assert run_id == record["run_id"] and measurement.of(plan, training, task).identity == record["identity"]
