"""The teacher's signal, live or cached: the same objective, read once for all, and no value of a damaged file."""

import json
import re

import pytest
import torch
from tiny_runs import distinct, make, method, near, pair, quiet, result

from harness.cli import main
from harness.errors import BadInput
from harness.models.files import load_model
from harness.models.head import trunk
from harness.training import signals
from harness.training.batching import TrainingSequence
from harness.training.loop import train
from harness.training.signals import HiddenStateLogits, TopKLogits
from harness.types import Source

pytestmark = pytest.mark.slow

torch.set_num_threads(1)
ASKING = [label for label in distinct() if method(label).needs.teacher == "signal"]
FIXED = ["kd", "jsd", "skl", "tvd", "taid", "akl"]  # off-policy, on the teacher's texts


@pytest.fixture(scope="module")
def place(prompts_file, tmp_path_factory):
    return pair(tmp_path_factory.mktemp("pair")), prompts_file, tmp_path_factory.mktemp("runs")


@pytest.fixture
def fresh(place, tmp_path):
    return *place[:2], tmp_path


class Counted:
    """Every token of every row that goes through a teacher's trunk while training; a probe of the head is not text."""

    def __init__(self, monkeypatch):
        self.tokens = self.calls = 0

        def load(*args, **kwargs):
            model = load_model(*args, **kwargs)
            trunk(model).register_forward_pre_hook(self.see, with_kwargs=True)
            return model

        monkeypatch.setattr("harness.models.loading.load_model", load)

    def see(self, module, args, kwargs):
        if kwargs["input_ids"].shape == (1, 4) and kwargs.get("attention_mask") is None:
            return
        self.calls += 1
        self.tokens += kwargs["input_ids"].numel()


@pytest.mark.parametrize("label", ASKING)
def test_cached_hidden_states_train_as_the_live_teacher(place, label):
    live, cached = (result(make(label, *place, signal=kind)) for kind in ("live", "hidden"))
    near(live.curve, cached.curve)
    torch.testing.assert_close(live.weights, cached.weights, rtol=1e-4, atol=1e-4)


def test_a_second_method_and_a_second_seed_cost_no_teacher_forward(fresh, monkeypatch):
    seen = Counted(monkeypatch)
    first = train(make("kd", *fresh, signal="hidden"), quiet)
    assert seen.calls > 0 and first.cost.teacher_forward_tokens > 0
    seen.calls = 0
    for label in FIXED[1:]:
        again = train(make(label, *fresh, signal="hidden"), quiet)
        assert again.cost.teacher_forward_tokens == first.cost.teacher_forward_tokens  # charged all the same
    train(make("kd", *fresh, signal="hidden", seed=7), quiet)
    train(make("kd", *fresh, signal="hidden", micro_batch=1, steps=5), quiet)
    assert seen.calls == 0
    train(make("kd", *fresh, signal="live"), quiet)
    assert seen.calls > 0  # the count can tell


def test_on_policy_text_goes_through_the_teacher_and_fixed_text_does_not(fresh, monkeypatch):
    train(make("gkd", *fresh, signal="hidden"), quiet)
    seen = Counted(monkeypatch)
    outcome = train(make("gkd", *fresh, signal="hidden"), quiet)  # one step of its own text, two of the teacher's
    assert seen.calls == 1 and [row["on_policy"] for row in outcome.curve] == [1.0, 0.0, 0.0]


def test_top_k_of_the_whole_vocabulary_equals_the_live_teacher(fresh):
    """Up to the one ulp that the empty bucket is held above."""
    for label in ("kd", "rkl", "jsd", "tvd", "skd", "distillm"):
        live = result(make(label, *fresh, signal="live"))
        whole = result(make(label, *fresh, signal="top-k", top_k=10**6))
        assert whole.losses == pytest.approx(live.losses, rel=1e-4)
        torch.testing.assert_close(whole.weights, live.weights, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize(
    "label", [m for m in ASKING if not (method(m).needs.exact or method(m).needs.sequence_features)]
)
@pytest.mark.parametrize("k", [1, 5, 50])
def test_top_k_is_non_negative_and_a_lower_bound(label, k):
    """Token by token, by the data-processing inequality; a gap of zero would be no bound but a copy."""
    from test_objectives import Case

    case = Case(label, hard=False)
    full = case.method.objective(case.tokens()).detach()
    tokens = case.tokens()
    tokens.student, tokens.teacher = TopKLogits.of(case.teacher, k).pair(case.student, 0, 10)
    coarse = case.method.objective(tokens).detach()
    assert (coarse > -1e-6).all() and (coarse <= full + 1e-5).all()
    if k == 1:
        assert (coarse < full - 1e-3).any()
    if k == 50:  # more than the nine words there are
        torch.testing.assert_close(coarse.double(), full.double(), rtol=1e-4, atol=1e-5)


def test_a_reading_of_hidden_states_is_the_models_own_logits(place):
    from harness.models.head import Head

    teacher = load_model(make("kd", *place).teacher)
    ids = torch.arange(12)[None]
    hidden = trunk(teacher)(input_ids=ids).last_hidden_state[0].detach()
    _, ours = HiddenStateLogits(hidden, Head.of(teacher, 258)).pair(None, 2, 9)
    torch.testing.assert_close(ours, teacher(input_ids=ids).logits[0, 2:9, :258].detach())
    assert not ours.requires_grad


class Killed(Exception):
    pass


def test_a_cache_goes_on_behind_its_last_whole_shard(fresh, monkeypatch):
    monkeypatch.setattr(signals, "SHARD_SEQUENCES", 4)  # twelve texts: three shards
    whole = result(make("kd", *fresh, signal="hidden", name="before"))

    def kill(stage, done, total, words):
        if stage == "teacher signal" and done == 8:
            raise Killed

    job = make("kd", *fresh, signal="hidden", name="cut")
    job.cache = fresh[2] / "other"
    with pytest.raises(Killed):
        train(job, kill)
    (folder,) = (job.cache / "signals").iterdir()
    kept = {p.name: p.stat().st_mtime_ns for p in folder.glob("*.safetensors")}
    assert sorted(kept) == ["00000.safetensors", "00001.safetensors"]
    seen = Counted(monkeypatch)
    job = make("kd", *fresh, signal="hidden", name="cut")
    job.cache = fresh[2] / "other"
    resumed = result(job)
    assert seen.calls == 1  # the third shard alone
    assert {p.name: p.stat().st_mtime_ns for p in folder.glob("*.safetensors")}.items() >= kept.items()
    assert torch.equal(resumed.weights, whole.weights) and resumed.curve == whole.curve


def test_another_teacher_or_tokenizer_has_a_cache_of_its_own(fresh):
    (student, teacher), prompts, folder = fresh
    train(make("kd", (student, teacher), prompts, folder, signal="hidden"), quiet)
    first = set((folder / "signals").iterdir())
    train(make("kd", (teacher, student), prompts, folder, signal="hidden"), quiet)
    assert len(set((folder / "signals").iterdir()) - first) == 1


@pytest.fixture
def command(place, tiny_world, tmp_path):
    """``harness run`` on the random models and a task of four items; returns its exit code."""
    from pathlib import Path

    models, prompts, _ = place
    recipe = tiny_world(
        f"validation = '{prompts}'\n"
        "[training]\nsteps = 2\nbatch = 2\nmax_tokens = 64\nsignal = 'hidden'\n[rollout]\nmax_new_tokens = 6\n"
        "[teacher_text]\nmax_new_tokens = 6\n",
        models,
        prompts,
    )
    task = str(Path(__file__).parent / "plugin/parity_plugin.py")

    def run(*words, method="kd"):
        methods = [word for name in method.split() for word in ("--method", name)]
        results = ["--results", str(tmp_path / "results")]
        return main(["run", *methods, "--task", task, "--recipe", str(recipe), *results, "--json", *words])

    return run, tmp_path / "results"


def one_line(capsys) -> str:
    said = capsys.readouterr()
    assert said.out == "" and "Traceback" not in said.err
    told = ("on parity", "data.prompts: ", "the first training example is ")
    lines = [line for line in said.err.splitlines() if not any(words in line for words in told)]
    assert len(lines) == 1, said.err
    return lines[0]


DAMAGES = {
    "a flipped byte": lambda b: b[:-3] + bytes([b[-3] ^ 1]) + b[-2:],
    "cut off": lambda b: b[: len(b) // 2],
    "empty": lambda b: b"",
    "no shard at all": lambda b: b"PK\x03\x04" * 50,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_is_one_line_naming_file_and_mend(command, capsys, damage):
    run, results = command
    assert run() == 0
    capsys.readouterr()
    (shard,) = (results / "work/signals").rglob("*.safetensors")
    before = {p: p.read_bytes() for p in results.rglob("*.json*")}
    shard.write_bytes(DAMAGES[damage](shard.read_bytes()))
    assert run(method="rkl") == 2
    said = one_line(capsys)
    assert str(shard) in said and "delete it; the same command makes it again" in said
    assert {p: p.read_bytes() for p in before} == before  # nothing else lost
    shard.unlink()
    if damage == "empty":  # once: a folder in its place
        shard.mkdir()
        assert run(method="rkl") == 2 and "is a folder; delete it" in one_line(capsys)
        shard.rmdir()
    assert run(method="rkl") == 0


def test_a_shard_of_other_fields_is_refused_though_its_seal_is_right(tmp_path):
    sequence = TrainingSequence((1, 2), (3, 4, 5), Source.DATA, 0)
    cache = signals.SignalCache(tmp_path, {"of": "x"}, [0], lambda number: sequence)
    cache.fill(lambda part: {"odd": torch.zeros(3, 2)})
    cache.verify(["odd"])
    with pytest.raises(BadInput, match="holds odd, not hidden; delete it"):
        cache.verify(["hidden"])


@pytest.mark.parametrize("fact", ["teacher", "tokenizer"])
def test_a_shard_of_another_teacher_or_tokenizer_is_refused(command, capsys, fact):
    from safetensors import safe_open
    from safetensors.torch import save_file

    run, results = command
    assert run() == 0
    capsys.readouterr()
    (shard,) = (results / "work/signals").rglob("*.safetensors")
    with safe_open(shard, framework="pt") as stream:
        facts, fields = stream.metadata(), {k: stream.get_tensor(k) for k in stream.keys()}  # noqa: SIM118
    save_file(fields, shard, facts | {fact: "somebody else's"})
    assert run(method="rkl") == 2
    said = one_line(capsys)
    assert f'was made with {fact} "somebody else\'s"' in said and str(shard) in said and "delete it" in said


def test_the_record_says_what_was_known_of_the_teacher(command, capsys):
    run, results = command
    assert run() == 0
    (hidden,) = json.loads(capsys.readouterr().out)["records"]
    card = hidden["convention"]
    assert card["teacher_signal"] == "exact, hidden states cached" and card["top_k_tail"] == "none: exact signal"
    (shard,) = (results / "work/signals").rglob("*.safetensors")
    tokens = json.loads((results / "work/trained" / hidden["training_id"] / "training.json").read_text())
    assert card["signal_bytes_per_token"] == tokens["signal"]["bytes_per_token"]
    assert 24 * 4 < card["signal_bytes_per_token"] < 24 * 4 * 1.5  # hidden states of width 24 in fp32, and a header
    assert run("--set", "training.signal=top-k", "--set", "training.top_k=3") == 0
    (few,) = json.loads(capsys.readouterr().out)["records"]
    assert few["convention"]["teacher_signal"] == "top-3, cached"
    assert few["convention"]["top_k_tail"] == "one bucket with all remaining mass"
    assert few["convention"]["signal_bytes_per_token"] < card["signal_bytes_per_token"] and shard.is_file()
    assert few["training_id"] != hidden["training_id"]


@pytest.mark.parametrize(
    ("name", "settings", "why"),
    [
        ("taid", [], "method taid needs the teacher's whole distribution"),
        ("akl", [], "method akl needs the teacher's whole distribution"),
        ("opd", [], "method opd needs the teacher's whole distribution"),
        ("eopd", [], "method eopd needs the teacher's whole distribution"),
        ("minillm", [], "method minillm needs the teacher's whole distribution"),  # for its survey
        ("distillm2", [], "method distillm2 needs the teacher's whole distribution"),
        ("abkd", [], "method abkd needs the teacher's whole distribution"),
        ("kd", ["--set", "method.temperature=2"], "method kd has a loss temperature of 2"),
        ("topk_opd", [], "method topk_opd needs the teacher's whole distribution"),  # whose support is its own
        ("selectkd", [], "method selectkd needs the teacher's whole distribution"),
        ("amid", [], "method amid needs the teacher's whole distribution"),
        ("pw_opd", [], "method pw_opd needs the teacher's whole distribution"),  # a clip on a bucket
    ],
)
def test_a_method_that_top_k_cannot_serve_is_refused_before_any_work(command, capsys, name, settings, why):
    run, results = command
    assert run("--set", "training.signal=top-k", *settings, method=name) == 2
    said = one_line(capsys)
    assert why in said and re.search(r"set training.signal=hidden \(cached\) or live", said)
    assert not (results / "work").exists() and not (results / "records").exists()


def test_every_method_either_runs_on_top_k_or_says_so_before(command, capsys):
    run, results = command
    refused = [m for m in ASKING if method(m).needs.exact or method(m).needs.sequence_features]
    for label in refused:
        assert run("--set", "training.signal=top-k", method=label) == 2, label
        assert "top-64 signal cannot give that" in one_line(capsys)
    assert not (results / "work").exists()
    assert {"kd", "gkd", "skd", "distillm", "vcrd", "fdistill", "imitkd"} <= set(ASKING) - set(refused)
