"""Several processes of one launch: the shipped configurations, one writer, the loss curve of one process."""

import json
import subprocess
import sys

import pytest
import yaml

from harness import launch
from harness.errors import BadInput
from harness.launch import processes
from harness.records.store import Store

NAMES = {"one": 1, "ddp_8": 8, "fsdp_8": 8, "ddp_2x8": 16, "fsdp_2x8": 16, "cpu_2": 2}


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


def test_two_processes_make_one_record_and_the_curve_of_one(tmp_path):
    job = ["--method", "gkd", "--task", "humaneval@micro", "--device", "cpu", "--json"]
    settings = ["training.steps=4", "training.batch=4", "training.threads=1", "data.limit=8", "evaluation.limit=2"]
    settings += ["rollout.max_new_tokens=8", "teacher_text.max_new_tokens=8", "evaluation.max_new_tokens=8"]
    job += [word for setting in settings for word in ("--set", setting)]
    alone = [sys.executable, "-m", "harness", "run", *job, "--results", str(tmp_path / "one")]
    launcher = [
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(launch.path("cpu_2")),
        "--main_process_port",
        "0",
    ]
    both = [sys.executable, *launcher, "-m", "harness", "run", *job, "--results", str(tmp_path / "two")]
    ends = [subprocess.run(command, capture_output=True, text=True, timeout=600) for command in (alone, both)]
    assert [end.returncode for end in ends] == [0, 0], ends[1].stderr[-3000:]
    one, two = (json.loads(end.stdout)["records"] for end in ends)  # the second process printed nothing
    assert len(one) == len(two) == 1 and one[0]["run_id"] == two[0]["run_id"]
    assert len(Store(tmp_path / "two").all()[0]) == 1
    curves = []
    for name in ("one", "two"):
        (facts,) = (tmp_path / name / "work/trained").glob("*/training.json")
        curves.append([row["loss"] for row in json.loads(facts.read_text())["curve"]])
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    assert not list((tmp_path / "two/work/training").glob("*"))
