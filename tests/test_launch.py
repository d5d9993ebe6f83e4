"""Several processes of one launch: the shipped configurations, one writer, the loss curve of one process."""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml
from children import finished, forked

from harness import launch
from harness.cli import main
from harness.errors import BadInput
from harness.launch import processes
from harness.records.store import Store

pytestmark = pytest.mark.slow

NAMES = {"one": 1, "ddp_8": 8, "fsdp_8": 8, "ddp_2x8": 16, "fsdp_2x8": 16, "cpu_2": 2, "fsdp_cpu_2": 2}


def test_the_configurations_are_those_of_the_page():
    assert set(launch.names()) == set(NAMES)
    for name, processes_ in NAMES.items():
        assert f"\n{name} " in launch.__doc__
        content = yaml.safe_load(launch.path(name).read_text("utf-8"))
        assert content["num_processes"] == processes_ and content["num_machines"] == (2 if "2x8" in name else 1)
        assert content["mixed_precision"] == "no" and ("fsdp_config" in content) == name.startswith("fsdp")


@pytest.mark.parametrize("name", sorted(NAMES))
def test_accelerate_reads_them(name):
    from accelerate.commands.config.config_args import load_config_from_file

    read = load_config_from_file(str(launch.path(name)))
    assert read.num_processes == NAMES[name]


def test_an_unknown_configuration_is_one_line():
    with pytest.raises(BadInput, match="did you mean"):
        launch.path("ddp_9")
    done = subprocess.run([sys.executable, "-m", "harness.launch", "ddp_9"], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0 and done.stderr.startswith("harness: unknown launch configuration")


def test_a_lone_process_leads_and_tells_nobody(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.delenv("RANK", raising=False)
    assert processes.leads() and not processes.several()
    processes.join("cpu")
    processes.tell("x")


def launched(name, folder, *words) -> tuple[str, str]:
    """What the processes of a configuration print to stdout and stderr; the launcher is a copy of this process."""
    from accelerate.commands.launch import launch_command, launch_command_parser

    options = ["--config_file", str(launch.path(name)), "--main_process_port", "0"]
    chosen, said = launch_command_parser().parse_args([*options, *words]), folder / f"{name}.out"
    code = finished(forked(lambda: launch_command(chosen), said), timeout=600)
    printed, told = said.read_text("utf-8"), said.with_name(f"{said.name}.err").read_text("utf-8")
    assert code == 0, told[-3000:]
    return printed, told


def test_the_fsdp_configurations_ask_for_one_and_the_same_kind():
    """What two CPU processes show below is what eight GPUs are asked for."""
    asked = [yaml.safe_load(launch.path(name).read_text("utf-8")) for name in NAMES if name.startswith("fsdp")]
    assert len(asked) == 3 and all(one["fsdp_config"] == asked[0]["fsdp_config"] for one in asked)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("FSDP_VERSION", "1", "requests FSDP 1; set fsdp_version: 2"),
        ("FSDP_OFFLOAD_PARAMS", "true", "requests fsdp_offload_params, which is not supported; set it to false"),
        ("FSDP_CPU_RAM_EFFICIENT_LOADING", "true", "fsdp_cpu_ram_efficient_loading"),
        ("FSDP_ACTIVATION_CHECKPOINTING", "true", "fsdp_activation_checkpointing"),
    ],
)
def test_fsdp_that_is_not_done_is_refused_before_any_work(tmp_path, capsys, monkeypatch, name, value, said):
    monkeypatch.setenv(processes.SHARDED, "true")
    assert processes.sharded()
    monkeypatch.setenv(name, value)
    words = ["--task", "humaneval@micro", "--device", "cpu", "--results", str(tmp_path / "r")]
    assert main(["run", "--method", "sft", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (tmp_path / "r").exists()
    monkeypatch.delenv(processes.SHARDED)
    assert not processes.sharded()


def test_more_processes_than_gpus_is_one_line(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    refused = r"8 processes were started on a machine with 2 GPUs; .* --num_processes 2,"
    with pytest.raises(BadInput, match=refused):
        processes.join("cuda")
    monkeypatch.delenv("LOCAL_WORLD_SIZE")  # a launcher that does not say: all of them are here
    with pytest.raises(BadInput, match=refused):
        processes.join("cuda")
    connected = []
    monkeypatch.setattr("accelerate.PartialState", lambda **options: connected.append(options))
    processes.join("cpu")  # processes share a CPU
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    processes.join("cuda")
    assert len(connected) == 2


TELLING = """
import sys
from harness.cli import main
from harness.launch import processes
print(f"sharded: {processes.sharded()}", file=sys.stderr, flush=True)
sys.exit(main(sys.argv[1:]))
"""  # the command, with a line about what accelerate handed on


def test_two_processes_make_one_record_and_the_curve_of_one(tmp_path, capsys, monkeypatch):
    """As the configurations start them; the one process is this one."""
    job = ["--method", "gkd", "--task", "humaneval@micro", "--device", "cpu", "--json"]
    settings = ["training.steps=4", "training.batch=4", "training.threads=1", "data.limit=8", "evaluation.limit=2"]
    settings += ["rollout.max_new_tokens=8", "teacher_text.max_new_tokens=8", "evaluation.max_new_tokens=8"]
    job += [word for setting in settings for word in ("--set", setting)]
    (tmp_path / "telling.py").write_text(TELLING)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    made, curves = [], []
    for name, sharded in (("one", None), ("cpu_2", "False"), ("fsdp_cpu_2", "True")):
        words = ["run", *job, "--results", str(tmp_path / name)]
        if sharded is None:
            assert main(words) == 0
            said = capsys.readouterr().out
        else:
            said, told = launched(name, tmp_path, "-m", "telling", *words)
            assert re.findall(r"sharded: (\w+)", told) == [sharded, sharded], told[-3000:]
        (record,) = json.loads(said)["records"]  # the second process printed nothing
        made.append(record["run_id"])
        assert len(Store(tmp_path / name).all()[0]) == 1
        (facts,) = (tmp_path / name / "work/trained").glob("*/training.json")
        curves.append([row["loss"] for row in json.loads(facts.read_text())["curve"]])
        assert not list((tmp_path / name / "work/training").glob("*"))
    assert len(set(made)) == 1
    assert curves[1] == pytest.approx(curves[0], rel=1e-4) and curves[2] == pytest.approx(curves[0], rel=1e-4)
