"""Optimizers, the float32 weights behind a bfloat16 model, and micro-batches of like length."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState
from test_estimate import PAPER
from tiny_runs import close, make, quiet, result

from harness import plan, recipe
from harness.errors import BadInput
from harness.estimate.resources import memory_of
from harness.plan import RunRequest
from harness.training import optimizers
from harness.training.batching import TrainingSequence, micro_batches
from harness.training.loop import train
from harness.types import Source

PARITY = str(Path(__file__).parent / "plugin/parity_plugin.py")
NAMES = ["adamw", "adamw_fused", "sgd", "adafactor", "muon", "adamw8bit"]
RATES = {"sgd": 5e-2, "adafactor": 1e-2}


class Stop(Exception):
    pass


def trained(job, progress=quiet):
    AcceleratorState._reset_state()  # which keeps a process to its first precision
    return train(job, progress)


def interrupt(stage, done, total, words):
    if stage == "train" and done == 3:
        raise Stop


@pytest.mark.parametrize("name", ["cosine", "linear", "constant"])
def test_schedules_are_those_of_transformers_to_the_last_bit(name):
    from transformers.optimization import get_scheduler

    for steps, share in ((1, 0.0), (7, 1.0), (200, 0.05)):
        weights = [torch.nn.Parameter(torch.ones(1))]
        ours, theirs = (torch.optim.SGD(weights, lr=1e-3) for _ in range(2))
        plan = replace(recipe.Training(), schedule=name, steps=steps, warmup=share)
        pair = optimizers.schedule(ours, plan), get_scheduler(name, theirs, round(share * steps), steps)
        for _ in range(steps + 1):
            assert pair[0].get_last_lr() == pair[1].get_last_lr()
            for optimizer, each in zip((ours, theirs), pair, strict=True):
                optimizer.step()
                each.step()


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_learns_and_resumes_bit_for_bit(models, prompts_file, tmp_path, name):
    def job(folder, **more):
        settings = {"optimizer": name, "steps": 4, "learning_rate": RATES.get(name, 1e-3)}
        return make("kd", models, prompts_file, tmp_path, name=folder, **settings, **more)

    whole = trained(job("whole"))
    assert whole.curve[-1]["loss"] < whole.curve[0]["loss"]
    with pytest.raises(Stop):
        trained(job("cut", checkpoint_every=2), interrupt)
    resumed = trained(job("cut", checkpoint_every=2))
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert [row["learning_rate"] for row in whole.curve] == [row["learning_rate"] for row in resumed.curve]


def _weights():
    torch.manual_seed(0)
    shapes = {"model.embed_tokens.weight": (9, 4), "layers.0.q_proj.weight": (4, 4), "norm.weight": (4,)}
    named = [(name, torch.nn.Parameter(torch.randn(shape))) for name, shape in shapes.items()]
    for _, p in named:
        p.grad = torch.randn_like(p)
    return named


@pytest.mark.parametrize("name", ["adamw", "adamw_fused", "sgd", "adafactor", "muon"])
def test_a_step_is_that_of_torch(name):
    """Muon moves the matrices inside and AdamW all else, at one rate."""
    settings = recipe.Training(optimizer=name, learning_rate=0.02, weight_decay=0.1, momentum=0.8)
    ours, theirs = _weights(), _weights()
    optimizers.make(ours, settings).step()
    own = {"lr": 0.02, "weight_decay": 0.1}
    every, inside = [p for _, p in theirs], [theirs[1][1]]
    expected = {
        "adamw": lambda: [torch.optim.AdamW(every, **own)],
        "adamw_fused": lambda: [torch.optim.AdamW(every, fused=True, **own)],
        "sgd": lambda: [torch.optim.SGD(every, momentum=0.8, **own)],
        "adafactor": lambda: [torch.optim.Adafactor(every, **own)],
        "muon": lambda: [
            torch.optim.Muon(inside, momentum=0.8, adjust_lr_fn="match_rms_adamw", **own),
            torch.optim.AdamW([theirs[0][1], theirs[2][1]], **own),
        ],
    }[name]()
    for one in expected:
        one.step()
    for (label, a), (_, b) in zip(ours, theirs, strict=True):
        assert torch.equal(a, b), label


@pytest.mark.parametrize("name", NAMES)
def test_decay_can_spare_norms_with_every_optimizer(name):
    spared = recipe.Training(optimizer=name, learning_rate=0.1, weight_decay=0.5, decay_norms=False)
    named = _weights()
    for _, p in named:
        p.grad = torch.zeros_like(p)
    before = [p.detach().clone() for _, p in named]
    optimizers.make(named, spared).step()
    moved = [not torch.equal(p, b) for (_, p), b in zip(named, before, strict=True)]
    assert moved == [True, True, False]


def test_muon_without_a_matrix_inside_or_without_anything_else():
    named = _weights()
    settings = recipe.Training(optimizer="muon")
    assert isinstance(optimizers.make(named[1:2], settings), torch.optim.Muon)
    assert isinstance(optimizers.make(named[::2], settings), torch.optim.AdamW)


@pytest.mark.slow
def test_float32_weights_behind_the_model_take_updates_that_bfloat16_loses(models, prompts_file, tmp_path):
    """At a rate of 1e-5 an update is below the resolution of bfloat16: with no float32 copy nearly nothing moves."""
    settings = {"precision": "bfloat16", "learning_rate": 1e-5, "warmup": 0.0, "schedule": "constant", "steps": 6}
    runs = {
        where: trained(make("kd", models, prompts_file, tmp_path, name=where, master_weights=where, **settings))
        for where in ("model", "optimizer", "none")
    }
    losses = {where: [row["loss"] for row in run.curve] for where, run in runs.items()}
    # One first step up to the rounding of the weights to bfloat16.
    assert losses["optimizer"][0] == losses["none"][0] == pytest.approx(losses["model"][0], rel=0.02)
    assert {p.dtype for p in runs["optimizer"].model.parameters()} == {torch.bfloat16}
    start = trained(make("kd", models, prompts_file, tmp_path, name="start", **settings | {"steps": 0})).model
    rounded = torch.cat([p.detach().bfloat16().flatten() for p in start.parameters()])
    moved = {
        where: (torch.cat([p.detach().flatten() for p in run.model.parameters()]).bfloat16() != rounded)
        .float()
        .mean()
        .item()
        for where, run in runs.items()
    }
    # Small weights can still move in bfloat16. A float32 copy of rounded weights starts in the middle of a step of
    # bfloat16, so fewer of them cross one than of weights that were never rounded, but more than without the copy.
    assert moved["none"] < 0.9 * moved["optimizer"] and moved["optimizer"] <= moved["model"]


@pytest.mark.slow
@pytest.mark.parametrize("adapter", ["none", "lora"])
@pytest.mark.parametrize("where", ["optimizer", "none"])
def test_a_bfloat16_model_resumes_bit_for_bit(models, prompts_file, tmp_path, where, adapter):
    def job(folder, **more):
        settings = {"precision": "bfloat16", "master_weights": where, "steps": 4, "micro_batch": 2}
        sections = {"student": {"adapter": adapter, "rank": 2}}
        return make("gkd", models, prompts_file, tmp_path, name=folder, sections=sections, **settings, **more)

    whole = trained(job("whole"))
    with pytest.raises(Stop):
        trained(job("cut", checkpoint_every=2), interrupt)
    resumed = trained(job("cut", checkpoint_every=2))
    assert [row["loss"] for row in whole.curve] == [row["loss"] for row in resumed.curve]
    for a, b in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    if adapter == "lora":
        assert {t.dtype for t in whole.adapter.weights.values()} == {torch.float32}


def test_gradients_of_a_bfloat16_model_add_up_in_float32():
    """257 times 1 is 256 in bfloat16, which cannot count further."""
    weight = torch.nn.Parameter(torch.zeros(3, dtype=torch.bfloat16))
    masters = optimizers.MasterWeights([("w", weight)])
    for _ in range(257):
        weight.sum().backward()
    ((_, master),) = masters.trained
    assert master.grad.tolist() == [257.0] * 3 and weight.grad is None
    with torch.no_grad():
        master += 1.001
    masters.publish()
    assert weight.tolist() == [1.0] * 3 and master.dtype == torch.float32


def sequences(lengths):
    return [TrainingSequence((1,) * 3, (2,) * (n - 3), Source.DATA, i, place=i) for i, n in enumerate(lengths)]


def test_micro_batches_of_like_length_waste_little():
    lengths = [4, 5, 6, 6, 7, 8, 9, 30, 31, 33, 64, 65, 200]
    mixed = sequences(lengths)
    parts = micro_batches(mixed[::-1], 64, 70)
    sizes = [[len(s.prompt) + len(s.response) for s in part] for part in parts]
    assert sorted(n for part in sizes for n in part) == lengths
    assert all(max(part) * len(part) <= 70 for part in sizes if len(part) > 1)
    padding = [sum(max(part) * len(part) - sum(part) for part in found) for found in (sizes, [lengths])]
    assert padding[0] < 0.05 * sum(lengths) < padding[1]
    assert max(map(len, micro_batches(mixed, 3, 10**6))) == 3
    # One sequence beyond the bound stands alone; without a bound nothing changes.
    assert [200] in sizes and micro_batches(mixed, 4) == [mixed[i : i + 4] for i in range(0, 13, 4)]


def test_long_and_short_sequences_share_no_pass_where_that_wastes_more_than_a_pass():
    """A roomy bound must not pad a hundred short sequences to one long one; near lengths share a pass."""
    lengths = [20] * 50 + [22] * 50 + [900, 950]
    parts = micro_batches(sequences(lengths), 10**6, 10**6)
    assert [len(part) for part in parts] == [100, 2]
    assert [len(part) for part in micro_batches(sequences([10, 300]), 9, 10**6)] == [1, 1]
    assert [len(part) for part in micro_batches(sequences([10, 200]), 9, 10**6)] == [2]


@pytest.mark.slow
@pytest.mark.parametrize("label", ["sft", "gkd", "distillm2", "minillm"])
def test_grouping_by_length_changes_only_rounding(models, prompts_file, tmp_path, label):
    runs = [
        result(make(label, models, prompts_file, tmp_path, name=str(tokens), micro_tokens=tokens))
        for tokens in (None, 40, 12)
    ]
    close(runs[0], runs[1])
    close(runs[0], runs[2])


def planned(tiny_world, tmp_path, *settings):
    path = tiny_world("[training]\nsteps = 2\nbatch = 6\n")
    return plan.prepare(RunRequest(["kd"], [PARITY], str(path), settings=settings, results=tmp_path / "results"))


def test_settings_at_their_old_value_keep_the_id(tiny_world, tmp_path):
    def of(*settings):
        return planned(tiny_world, tmp_path, *settings).trainings[0]

    plain = of()
    added = {"optimizer", "momentum", "master_weights", "micro_tokens"}
    assert not plain.spec["training"].keys() & added
    for same in ("training.optimizer=adamw", "training.momentum=0.5", "training.micro_tokens=none"):
        assert of(same).training_id == plain.training_id
    others = [
        of("training.optimizer=sgd"),
        of("training.optimizer=sgd", "training.momentum=0.5"),
        of("training.optimizer=muon"),
        of("training.micro_tokens=64"),
        of("training.precision=bfloat16", "training.master_weights=optimizer"),
    ]
    assert len({t.training_id for t in (plain, *others)}) == 6
    assert others[0].spec["training"].keys() & added == {"optimizer", "momentum"}


def test_the_published_students_keep_their_ids():
    """Of the records in the repository, under the recipe that made them."""
    folder = Path(__file__).parent.parent / "results/micro/records"
    found = [json.loads(path.read_text()) for path in sorted(folder.rglob("kd-*.json"))]
    record = next(r for r in found if r["seed"] == 0 and r["spec"]["training"]["steps"] == 200)
    again = plan.prepare(RunRequest(["kd"], ["amc23@micro"], device="cpu", results=Path("/nonexistent/never")))
    assert again.trainings[0].training_id == record["training_id"]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["training.optimizer=lion"], "is not one of adamw, adamw_fused, sgd, adafactor, muon, adamw8bit"),
        (["training.master_weights=optimizer"], "training.precision is float32; set training.precision=bfloat16"),
        (["training.master_weights=gpu"], "is not one of model, optimizer, none"),
        (["training.micro_tokens=0"], r"training.micro_tokens=0 is outside \[1"),
        (["training.momentum=2"], "training.momentum=2.0 is outside"),
    ],
)
def test_what_cannot_be_trained_is_said_before_any_work(tiny_world, tmp_path, settings, said):
    with pytest.raises(BadInput, match=said.replace(".", r"\.")):
        planned(tiny_world, tmp_path, *settings)


def test_a_missing_package_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BadInput, match=r"adamw8bit needs bitsandbytes.*\[quantization\]"):
        optimizers.check(recipe.Training(optimizer="adamw8bit"))
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(BadInput, match="muon needs a newer torch"):
        optimizers.check(recipe.Training(optimizer="muon"))


def test_memory_counts_the_states_as_they_are():
    student = PAPER.student.parameters

    def states(**change):
        return replace(PAPER, **change).states / student

    assert (states(), states(optimizer="sgd"), states(optimizer="adamw8bit")) == (16, 12, 10)
    assert states(master_weights="optimizer") == 2 + 4 + 4 + 8 and states(master_weights="none") == 2 + 2 + 4
    few = replace(PAPER, trained=10**7, master_weights="none")
    assert few.states == 2 * student + 16 * 10**7
    passes = [memory_of(replace(PAPER, master_weights=w))["forward and backward"] for w in ("model", "optimizer")]
    assert passes[0] - passes[1] == 2 * student  # the copies that autocast makes
    assert replace(PAPER, micro_tokens=2048).micro_rows == 2 and replace(PAPER, micro_tokens=1).micro_rows == 1


def test_states_of_the_optimizers_have_the_size_that_is_estimated():
    from harness.estimate.resources import STATE_BYTES

    for name in NAMES:
        big = [("layers.0.q_proj.weight", torch.nn.Parameter(torch.randn(256, 512)))]
        big[0][1].grad = torch.randn_like(big[0][1])
        made = optimizers.make(big, recipe.Training(optimizer=name))
        made.step()
        entries = [v for state in made.state.values() for k, v in state.items() if torch.is_tensor(v) and v.dim()]
        size = sum(v.numel() * v.element_size() for v in entries) / big[0][1].numel()
        assert size == pytest.approx(STATE_BYTES[name], abs=0.2), name
