"""How much of a student is trained, for how long, and with which memory: nothing of it may change the gradients."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_runs import make, result

from harness import plan, recipe
from harness.cli import main
from harness.errors import BadInput
from harness.plan import RunRequest
from harness.recipe import Adapter
from harness.rerun.command import Replacements, find

PARITY = str(Path(__file__).parent / "plugin/parity_plugin.py")


def test_checkpointed_layers_give_the_same_run_bit_for_bit(models, prompts_file, tmp_path):
    runs = [
        result(make("gkd", models, prompts_file, tmp_path, name=str(flag), gradient_checkpointing=flag))
        for flag in (False, True)
    ]
    assert torch.equal(runs[0].weights, runs[1].weights) and runs[0].curve == runs[1].curve


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointed_layers_with_an_adapter_give_the_same_run_bit_for_bit(models, prompts_file, tmp_path, dropout):
    """Dropout too: its random numbers are drawn again as they were."""
    runs = []
    for flag in (False, True):
        job = make("kd", models, prompts_file, tmp_path, name=str(flag), gradient_checkpointing=flag)
        runs.append(result(replace(job, recipe=replace(job.recipe, student=Adapter("lora", 4, dropout=dropout)))))
    assert torch.equal(runs[0].weights, runs[1].weights) and runs[0].curve == runs[1].curve


def test_checkpointed_layers_keep_less_for_the_backward_pass(models):
    from harness.models import files
    from harness.training.loop import _checkpoint_layers

    kept = []
    for flag in (False, True):
        model, sizes = files.load_model(files.locate(str(models[0]))).train(), {}
        if flag:
            _checkpoint_layers(model, "tiny")

        def keep(tensor, sizes=sizes):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            model.model(input_ids=torch.arange(200)[None], use_cache=False)
        kept.append(sum(sizes.values()))
    assert kept[1] < 0.4 * kept[0]


def request(path, *settings, methods=("kd", "sft"), **more):
    return RunRequest(methods=methods, tasks=[PARITY], recipe=str(path), settings=settings, **more)


def planned(tiny_world, tmp_path, *settings, **more):
    path = tiny_world("[training]\nsteps = 5\nbatch = 6\n")
    return plan.prepare(request(path, *settings, results=tmp_path / "results", **more))


@pytest.mark.parametrize(("epochs", "steps"), [("1", 2), ("2.5", 5), ("0.1", 1), ("0", 0), ("3", 6)])
def test_epochs_are_steps_over_the_examples(tiny_world, tmp_path, epochs, steps):
    """Twelve examples in batches of six; a last batch that the epochs fill in part is a whole step."""
    found = planned(tiny_world, tmp_path, f"training.epochs={epochs}")
    said = planned(tiny_world, tmp_path, f"training.steps={steps}")
    assert [t.spec["training"]["steps"] for t in found.trainings] == [steps] * 2
    # The same training under both names: one student, one record.
    assert [t.training_id for t in found.trainings] == [t.training_id for t in said.trainings]


def test_an_epoch_passes_over_what_the_method_reads(tiny_world, tmp_path):
    found = planned(tiny_world, tmp_path, "training.epochs=2", "data.limit=6")
    labelled = {t.method.name: found.recipe_of(t.method).training.steps for t in found.trainings}
    assert labelled["kd"] == 2 and labelled["sft"] == -(-2 * len(found.data.labelled) // 6)


def test_steps_and_epochs_are_one_setting(tiny_world, tmp_path):
    path = tiny_world("[training]\nsteps = 5\nepochs = 2\n")
    with pytest.raises(BadInput, match=r"training\.steps=5 and training\.epochs=2 both say"):
        plan.prepare(request(path))
    with pytest.raises(BadInput, match=r"--set: training\.steps=5 and training\.epochs=2 both say"):
        recipe.override(recipe.load("micro"), ["training.steps=5", "training.epochs=2"])
    # A later layer replaces what an earlier one said, in whichever form.
    by_epochs, _ = recipe.override(recipe.load("micro"), ["training.epochs=2"])
    assert by_epochs.training.epochs == 2.0
    by_steps, _ = recipe.override(by_epochs, ["training.steps=7"])
    assert by_steps.training.steps == 7 and by_steps.training.epochs is None
    with pytest.raises(BadInput, match=r"training\.epochs=-1.0 is outside"):
        recipe.override(by_steps, ["training.epochs=-1"])


def test_an_adapter_is_another_training_and_is_written_down(tiny_world, tmp_path):
    whole = planned(tiny_world, tmp_path)
    again = planned(tiny_world, tmp_path, "student.adapter=none", "training.gradient_checkpointing=true")
    lora, dora = (
        planned(tiny_world, tmp_path, f"student.adapter={kind}", "student.rank=2") for kind in ("lora", "dora")
    )
    ids = [p.trainings[0].training_id for p in (whole, again, lora, dora)]
    assert ids[0] == ids[1] and len(set(ids)) == 3
    assert (
        "adapter" not in whole.trainings[0].spec and "gradient_checkpointing" not in whole.trainings[0].spec["training"]
    )
    assert lora.trainings[0].spec["adapter"]["rank"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_a_run_with_an_adapter_from_plan_to_export(tiny_world, models, tmp_path, capsys, kind):
    from transformers import AutoModelForCausalLM

    path = tiny_world(f"[student]\nadapter = '{kind}'\nrank = 2\n[training]\nepochs = 1\nbatch = 6\nmax_tokens = 64\n")
    results = str(tmp_path / "results")
    asked = ["--method", "kd", "--task", PARITY, "--recipe", str(path), "--results", results]
    assert main(["run", *asked, "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)["records"]
    assert record["convention"]["trained_weights"] == f"{kind}, rank 2, alpha 32, on all-linear"
    assert record["spec"]["training"]["steps"] == 2
    # The record leads back to its command, also from a recipe that says nothing of adapters and epochs.
    tiny_world("[training]\nsteps = 9\nbatch = 6\nmax_tokens = 64\n")
    given = Replacements(task=PARITY, recipe=str(path), student=str(models[0]), teacher=str(models[1]))
    back = find(record, tmp_path / "results", given)
    assert back.exact and f"student.adapter={kind}" in back.request.settings
    assert {"student.rank=2", "training.steps=2"} <= set(back.request.settings)
    for what, files in (("merged", "model.safetensors"), ("adapter", "adapter_model.safetensors")):
        out = tmp_path / what
        assert main(["export", record["run_id"], "--weights", what, "--results", results, "--out", str(out)]) == 0
        assert (out / files).is_file() and (out / "README.md").is_file() and (out / "tokenizer.json").is_file()
    assert not (tmp_path / "adapter/model.safetensors").exists()
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    # transformers finds the base of an adapter's folder by itself.
    added = AutoModelForCausalLM.from_pretrained(tmp_path / "adapter")
    ids = torch.arange(12)[None]
    torch.testing.assert_close(merged(ids).logits, added(ids).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("student.rank=0", "student.rank=0 is outside [1, inf]"),
        ("student.adapter=qlora", "is not one of none, lora, dora"),
        ("student.targets=q_prj", "has no module 'q_prj'"),
        ("student.dropout=1", "student.dropout=1.0 is outside"),
        ("student.ranks=4", "rank"),
    ],
)
def test_a_bad_adapter_is_one_line(tiny_world, tmp_path, capsys, setting, said):
    path = tiny_world("[student]\nadapter = 'lora'\n[training]\nsteps = 2\n")
    asked = ["--method", "kd", "--task", PARITY, "--recipe", str(path), "--set", setting]
    assert main(["run", *asked, "--results", str(tmp_path / "results")]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error and "\n" not in error and not (tmp_path / "results").exists()
