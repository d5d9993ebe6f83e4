"""Two trainings of one student, one after the other: ids, weights, costs, resuming, and refusals before any work."""

import json
from pathlib import Path

import pytest
import torch

from harness.cli import main
from harness.errors import BadInput
from harness.plan import RunRequest, prepare
from harness.records import work_folder
from harness.rerun import command

PARITY = str(Path(__file__).parent / "plugin/parity_plugin.py")
SHORT = "[training]\nsteps = 2\nbatch = 2\nmax_tokens = 64\ncheckpoint_every = 1\n[rollout]\nmax_new_tokens = 4\n"


def words(recipe, results, *settings, method="opd"):
    given = [word for setting in settings for word in ("--set", setting)]
    return ["run", "-m", method, "-t", PARITY, "--recipe", str(recipe), "--results", str(results), "--json", *given]


def recorded(capsys, *asked):
    assert main(words(*asked)) == 0
    (record,) = json.loads(capsys.readouterr().out)["records"]
    return record


def weights(folder):
    from safetensors.torch import load_file

    return torch.cat([t.flatten() for _, t in sorted(load_file(folder / "model.safetensors").items())])


def test_a_second_stage_starts_from_the_first_and_carries_its_cost(tiny_world, tmp_path, capsys):
    recipe, results = tiny_world(SHORT), tmp_path / "results"
    trained = results / "work/trained"
    first = ("before.method=kd", "before.steps=3", "before.learning_rate=0.01")
    alone = recorded(capsys, recipe, results, "training.steps=3", "training.learning_rate=0.01")  # opd, another method
    still = recorded(capsys, recipe, results, *first, "training.learning_rate=0")
    (stage,) = [folder for folder in trained.iterdir() if folder.name.startswith("kd-")]
    # A second stage that learns nothing leaves what the first one taught.
    assert torch.equal(weights(stage), weights(trained / still["training_id"]))
    assert not torch.equal(weights(stage), weights(trained / alone["training_id"]))
    made = stage.stat().st_mtime_ns
    both = recorded(capsys, recipe, results, *first)
    assert stage.stat().st_mtime_ns == made and both["training_id"] != still["training_id"]  # shared, not trained again
    assert not torch.equal(weights(stage), weights(trained / both["training_id"]))
    early = work_folder.facts_of(stage)
    assert both["before"] == {"training_id": stage.name, "method": "kd", "cost": early["cost"]}
    assert both["cost"]["steps"] == 5 and both["cost"]["student_tokens"] > early["cost"]["student_tokens"] > 0
    assert both["method"]["name"] == "opd" and both["method"]["after"] == "kd" and both["convention"]["after"] == "kd"
    assert both["spec"]["after"]["training"]["steps"] == 3 and "seed" not in both["spec"]["after"]
    # The first stage is the training that it would be as a run of its own.
    whole = recorded(capsys, recipe, results, "training.steps=3", "training.learning_rate=0.01")
    assert whole["training_id"] == alone["training_id"] and "after" not in whole["spec"]
    assert main(["table", "--results", str(results)]) == 0
    assert "kd>opd" in capsys.readouterr().out
    # A record gives its command back.
    found = command.find(both, results, command.Replacements(task=PARITY, recipe=str(recipe)))
    assert found.exact and "before.method=kd" in command.line(found.request)


def test_the_first_stage_alone_has_the_id_that_it_has_as_a_run(tiny_world, tmp_path):
    recipe = str(tiny_world(SHORT))
    asked = dict(recipe=recipe, results=tmp_path / "results")
    (staged,) = prepare(RunRequest(["opd"], [PARITY], settings=["before.method=kd"], **asked)).trainings
    (plain,) = prepare(RunRequest(["kd"], [PARITY], **asked)).trainings
    assert staged.first.training_id == plain.training_id and staged.label == "kd>opd"
    (other,) = prepare(RunRequest(["opd"], [PARITY], **asked)).trainings
    assert other.first is None and "after" not in other.spec and other.training_id != staged.training_id


@pytest.mark.parametrize("stopped", ["kd", "opd"])
def test_two_stages_resume_in_either(tiny_world, tmp_path, capsys, stopped, monkeypatch):
    from harness.training.rollouts import Rollouts

    recipe, settings = tiny_world(SHORT), ("before.method=kd",)
    whole = recorded(capsys, recipe, tmp_path / "whole", *settings)
    collect, results = Rollouts.collect, tmp_path / "results"

    def stop(self, step, sources, cost):
        if step.index == 1 and stopped == ("kd" if str(sources[0]) == "teacher" else "opd"):
            raise KeyboardInterrupt
        return collect(self, step, sources, cost)

    with monkeypatch.context() as patch:
        patch.setattr(Rollouts, "collect", stop)
        assert main(words(recipe, results, *settings)) != 0
    capsys.readouterr()
    (begun,) = (results / "work/training").iterdir()
    assert begun.name.startswith(f"{stopped}-")
    assert main([*words(recipe, results, *settings), "--resume", begun.name]) == 0
    (again,) = json.loads(capsys.readouterr().out)["records"]
    assert again["training_id"] == whole["training_id"]
    trained = [folder / "work/trained" / whole["training_id"] for folder in (results, tmp_path / "whole")]
    assert torch.equal(*map(weights, trained))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["before.method=gdk"], "unknown method 'gdk'; did you mean gkd"),
        (["before.method=teacher"], "before.method=teacher trains nothing"),
        (["before.steps=3"], "before.steps belongs to a first stage: name its method"),
        (["before.method=grpo"], "method grpo needs a grader"),
    ],
)
def test_a_first_stage_that_cannot_be_is_refused(tiny_world, tmp_path, settings, said):
    asked = RunRequest(["kd"], [PARITY], str(tiny_world(SHORT)), settings=settings, results=tmp_path / "results")
    with pytest.raises(BadInput, match=said):
        prepare(asked)
