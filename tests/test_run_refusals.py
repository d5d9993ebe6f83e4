"""What a training run refuses or stops at, in one line, and ``--control`` through the command line."""

import json

import pytest
import torch
from children import finished, forked
from test_signals import command, one_line, place  # noqa: F401 (fixtures)
from tiny_runs import make, quiet

from harness import options, plan, registry
from harness.cli import main
from harness.errors import BadInput, RunFailed
from harness.method import Method
from harness.training.loop import train
from harness.types import Source

BOUNDED = [
    (entry.name, option)
    for entry in registry.entries(registry.METHODS)
    for option in options.describe(registry.find(registry.METHODS, entry.name).Config)
    if option["low"] is not None and option["high"] is not None
]


@pytest.mark.parametrize(("name", "option"), BOUNDED, ids=lambda x: x if isinstance(x, str) else x["name"])
def test_a_hyper_parameter_out_of_range_names_range_and_paper(name, option):
    found = registry.find(registry.METHODS, name)
    for value in (option["low"] - 1, option["high"] + 1):
        with pytest.raises(BadInput) as error:
            plan.configured(name, _Recipe, {option["name"]: str(value)})
        said = str(error.value)
        assert f"method {name}.{option['name']}=" in said and "\n" not in said
        assert (found.paper in said) is not found.reconstruction  # whose ranges are ours
        assert f"[{option['low']}, {option['high']}]" in said and option["help"].rstrip(".") in said


class _Recipe:
    method: dict = {}


def test_the_command_line_names_range_and_paper(command, capsys):  # noqa: F811
    run, results = command
    for value in ("2", "-0.1", "nan"):
        assert run("--set", f"method.beta={value}", method="gkd") == 2
        said = one_line(capsys)
        assert "[0, 1]" in said and "https://arxiv.org/abs/2306.13649" in said and "teacher's weight" in said
    assert not (results / "work").exists()


class BadGradient(Method):
    """A finite loss whose gradient is not: the square root at 0."""

    name = "bad_gradient"

    def sources(self, step):
        return (Source.DATA,)

    def objective(self, tokens):
        value = tokens.logits.logsumexp(-1)
        return value + (value - value).sqrt() if tokens.step.index == 2 else value


class BadLogits(BadGradient):
    """A loss that is infinite because of the student."""

    def objective(self, tokens):
        if tokens.step.index == 2:
            tokens.logits.data[3, 5] = torch.inf
        return tokens.logits.logsumexp(-1)


def test_a_gradient_that_is_no_number_names_the_parameter_and_keeps_the_checkpoint(place):  # noqa: F811
    job = make(BadGradient(), *place, name="nan", steps=5, checkpoint_every=1)
    with pytest.raises(RunFailed, match=r"step 2: the gradient of \S+\.weight became NaN or infinite; the last") as e:
        train(job, quiet)
    named = str(e.value).split("gradient of ")[1].split()[0]
    model = torch.load(job.folder / "checkpoint.pt", weights_only=True)
    assert model["step"] == 2 and f"model.{named}" in model["student"]
    assert all(t.isfinite().all() for t in model["student"].values())


def test_the_first_tensor_that_is_no_number_is_named(place):  # noqa: F811
    job = make(BadLogits(), *place, name="inf", steps=5, checkpoint_every=2, micro_batch=4)
    with pytest.raises(
        RunFailed, match=r"the student logits .* at token 3 of sequence 0, in micro-batch 1 of 2; step 2"
    ):
        train(job, quiet)
    assert torch.load(job.folder / "checkpoint.pt", weights_only=True)["step"] == 2


def test_a_batch_smaller_than_the_processes_is_refused_by_each(place, tmp_path):  # noqa: F811
    """Each process says so and ends; none waits for the other."""
    models, prompts, _ = place

    def work() -> int:
        try:
            train(make("sft", models, prompts, tmp_path, batch=1), quiet)
        except BadInput as error:
            print(error)
            return 2
        return 0

    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": _free_port()}
    said = [tmp_path / f"{rank}.log" for rank in range(2)]
    started = [forked(work, said[r], **shared, RANK=str(r), LOCAL_RANK=str(r)) for r in range(2)]
    assert [finished(process) for process in started] == [2, 2]
    for file in said:
        assert file.read_text() == "training.batch=1 leaves some of 2 processes without work\n"


def _free_port() -> str:
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def test_control_runs_each_weighting_method_and_its_shuffled_control(command, capsys):  # noqa: F811
    run, results = command
    assert run("--control", "--seed", "96", method="pw_opd kd") == 0
    found = json.loads(capsys.readouterr().out)["records"]
    names = [(r["method"]["name"], r["method"]["variant"]) for r in found]
    assert names == [("pw_opd", None), ("pw_opd", "shuffled"), ("kd", None)]
    assert [r["method"]["settings"].get("shuffle") for r in found] == [False, True, None]
    cards = [r["convention"]["token_weights"] for r in found]
    assert cards[1] == cards[0] + "/shuffled" and cards[2] == "none"
    curves = [json.loads((results / "work/trained" / r["training_id"] / "training.json").read_text()) for r in found]
    assert curves[0]["curve"][0]["loss"] != curves[1]["curve"][0]["loss"]
    assert curves[0]["curve"][0]["on_policy"] == curves[1]["curve"][0]["on_policy"] == 1.0
    assert found[0]["cost"]["generated_tokens"] == found[1]["cost"]["generated_tokens"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "setting", "where"),
    [
        ("topk_opd", "method.k", "method topk_opd"),
        ("selectkd", "method.k", "method selectkd"),
        ("eopd", "method.top_k", "method eopd"),
        ("skd", "method.top_k", "method skd"),
        ("kd", "training.top_k", "training.top_k"),
    ],
)
def test_more_likeliest_tokens_than_the_vocabulary_has_are_refused(command, capsys, name, setting, where):  # noqa: F811
    run, results = command
    signal = ("--set", "training.signal=top-k") if name == "kd" else ()
    assert run("--set", f"{setting}=259", *signal, method=name) == 2
    assert f"{where} looks at the 259 likeliest tokens of a vocabulary of 258: set at most 258" in one_line(capsys)
    assert run("--set", f"{setting}=0", method=name) == (0 if name == "eopd" else 2)  # eopd: the whole vocabulary
    assert name == "eopd" or not (results / "work").exists()
    capsys.readouterr()
    assert run("--set", f"{setting}=258", *signal, "--seed", "5", method=name) == 0  # all of it is no mistake


def test_control_is_refused_where_nothing_weights_tokens(command, capsys):  # noqa: F811
    run, results = command
    assert run("--control", method="kd sft") == 2
    assert "--control: kd, sft: no token weights to shuffle" in one_line(capsys)
    assert not (results / "work").exists()


def test_every_method_with_weights_has_the_control():
    for entry in registry.entries(registry.METHODS):
        found = registry.find(registry.METHODS, entry.name)
        weighs = found.weight is not Method.weight
        assert (plan.SHUFFLED in plan.variants_of(found)) is weighs, entry.name


@pytest.mark.parametrize("side", ["--student", "--teacher"])
def test_the_default_recipe_trains_no_model_but_its_own(side, models, tmp_path, capsys):
    """It trained real models on the micro world's prompts with its learning rate, without a word."""
    words = ["run", "--task", "amc23", side, str(models[0]), "--results", str(tmp_path / "results"), "--dry-run"]
    assert main([*words, "--method", "kd", "--method", "untouched"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert f"{side} {models[0]} without --recipe would train on the micro world's prompts" in line
    assert main([*words, "--method", "untouched"]) == 0
    own = [words[0], *words[5:], "--task", "amc23", "--method", "sft", side, f"micro:{side[2:]}"]
    assert main(own) == 0
