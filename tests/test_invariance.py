"""What must not change a run of any method: micro-batches, order, processes, and the width of the checkpoints.

Curves agree to 1e-5 and weights to 1e-4: where a gradient is all rounding, so is the direction in which Adam moves.
"""

import itertools
import random
import shutil

import pytest
import torch
from conftest import tiny_model
from tiny_runs import close, distinct, make, method, near, pair, result
from transformers import AutoModelForCausalLM, AutoTokenizer
from two_processes import Group, Stopped, on_two, part, stopping, table
from vllm_stub import serving

from harness.method import Method, Step
from harness.models.files import load_model, load_tokenizer
from harness.training import loop
from harness.training.batching import collate
from harness.training.objective import Student
from harness.training.rollouts import Rollouts

pytestmark = pytest.mark.slow

LABELS = distinct()


@pytest.fixture(scope="module")
def place(prompts_file, tmp_path_factory):
    return pair(tmp_path_factory.mktemp("pair")), prompts_file, tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(place):
    """Every method's run in one micro-batch by one process; its teachers are asked for the gradients that they got."""
    teachers, found = [], {}

    def remember(*args, **kwargs):
        teachers.append(load_model(*args, **kwargs))
        return teachers[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("harness.models.loading.load_model", remember)
        patch.setattr("harness.training.teacher.load_model", remember)  # of a student that teaches itself
        for label in LABELS:
            found[label] = result(make(label, *place))
            assert len(found[label].losses) == 3 and all(abs(x) < 1e3 for x in found[label].losses), label
            assert method(label).needs.teacher == "none" or teachers or follows(label), label
            for name, parameter in (named for t in teachers for named in t.named_parameters()):
                assert parameter.requires_grad and parameter.grad is None, f"{label}: a gradient reached {name}"
            teachers.clear()
    return found


def test_the_runs_see_what_is_to_be_invariant(whole):
    """Text of unequal length, of every kind, weights that differ, a buffer that is read, states that move."""
    texts = {label: [(row["on_policy"], row["buffer_age"]) for row in run.curve] for label, run in whole.items()}
    assert texts["distillm"] == [(1.0, 0.0), (1.0, 1.0), (0.0, 0.0)]  # samples, replay, data
    assert [share for share, _ in texts["gkd"]] == [1.0, 0.0, 0.0]
    assert all(whole[label].state for label in ("taid", "distillm", "distillm2", "distillm2@paper"))
    assert [age for _, age in texts["distillm2@paper"]][1] > 0.0 == texts["distillm2"][1][1]  # drawn an epoch ahead
    for name in ("eopd", "iw_opd", "pw_opd", "pw_opsd", "reopold", "selectkd", "tip", "vcrd"):
        assert whole[name].losses != pytest.approx(whole[f"{name}@shuffled"].losses, rel=1e-4)
    unsure = [row["unsure"] for row in whole["eopd"].curve]
    assert all(0.1 < share < 0.9 for share in unsure)


@pytest.fixture(scope="module")
def padded(place, tmp_path_factory):
    """The same models in wider checkpoints, whose additional rows hold large numbers."""
    folders = []
    for model, width in zip(place[0], (300, 270), strict=True):
        folder = tmp_path_factory.mktemp("padded")
        wide, tokenizer = AutoModelForCausalLM.from_pretrained(model), AutoTokenizer.from_pretrained(model)
        wide.resize_token_embeddings(width, mean_resizing=False)
        with torch.no_grad():
            for embedding in (wide.get_input_embeddings(), wide.get_output_embeddings()):
                embedding.weight[len(tokenizer) :] = 7.0
        wide.save_pretrained(folder)  # with its generation configuration
        tokenizer.save_pretrained(folder)
        folders.append(folder)
    return tuple(folders)


@pytest.mark.parametrize("label", LABELS)
def test_the_width_of_the_checkpoints_the_order_of_the_batch_and_its_split(place, padded, whole, label, monkeypatch):
    """Student and teacher share a tokenizer of 258 tokens; the rest of 260, 264, 270 or 300 rows never matters.

    Nor does the order in which texts come and are laid out, nor a cut into 5 and 1, nor that every sequence is a
    micro-batch of its own, as in every second step. One run shows all: what any of them changes, it changes.
    """
    collect, split, steps = Rollouts.collect, loop.micro_batches, itertools.count()

    def shuffled(self, step, sources, cost):
        found = collect(self, step, sources, cost)
        random.Random(step.index).shuffle(found)
        return found

    def in_turn(found, *rest):
        return split(found, *rest) if next(steps) % 2 else [found[:5], found[5:]]

    monkeypatch.setattr(Rollouts, "collect", shuffled)
    monkeypatch.setattr(loop, "micro_batches", in_turn)
    close(whole[label], result(make(label, padded, *place[1:], name="padded", micro_batch=1)))
    assert next(steps) >= 3


# -- two processes, whole on each and cut over both -----------------------------------------------------------

STATEFUL = ["distillm", "distillm2", "distillm2@paper", "taid", "gkd", "vcrd@shuffled"]
SHORT = {"steps": 4, "checkpoint_every": 1, "max_tokens": 12}  # cuts responses; DistiLLM replays in the second step
UNEVEN = {"batch": 5, "micro_batch": 1}  # three micro-batches here, two there


@pytest.fixture(scope="module")
def stopped(place, tmp_path_factory):
    """Runs that one process left in their second step."""
    folder = tmp_path_factory.mktemp("stopped")
    for label in STATEFUL:
        with pytest.raises(Stopped):
            result(make(label, *place[:2], folder, name=f"one-{label}", **SHORT), stopping(2))
    return folder


@pytest.fixture(scope="module")
def tied(place, tmp_path_factory):
    """A pair whose student has one matrix for embedding and head, as small models have, of an odd number of rows."""
    return tiny_model(tmp_path_factory.mktemp("tied"), 3, 16, 261, tied=True), place[0][1]


def kind(label) -> tuple:
    """What the loop does for a method; what it computes between logits and values is its own, however they came."""
    one = method(label)
    steps = [Step(index, 3, draw) for index in (0, 2) for draw in (0.05, 0.84, 0.99)]
    weighs = (type(one).weight is not Method.weight, label.endswith("@shuffled"), type(one).after_step)
    return one.needs, one.reduction, *weighs, *(tuple(one.sources(step)) for step in steps)


# A cut student is the loop's and the head's affair, so that every kind of method shows it; the first label of each.
CUT = list({kind(label): label for label in reversed(LABELS)}.values())[::-1]


# Micro-batches grouped by length, and other optimizers: the settings of a method under a name.
OTHER_STEPS = {
    ("grouped", "gkd"): {"micro_tokens": 30},
    ("muon", "kd"): {"optimizer": "muon"},
    ("sgd", "kd"): {"optimizer": "sgd", "learning_rate": 0.05},
    ("master", "kd"): {"precision": "bfloat16", "master_weights": "optimizer"},
}
ADAPTED = {adapter: {"student": {"adapter": adapter, "rank": 2, "alpha": 4.0}} for adapter in ("lora", "dora")}
KEPT = {"steps": 4, "checkpoint_every": 2}


def group(place, stopped, tied, server, folder, cut) -> Group:
    """Every label, then those that go on from one process, those that stop, and the odd ones.

    Of the students with an adapter one checkpoints its layers, one is interrupted, and one is sampled by an engine, for
    which every process gathers the weights and the first one hands them over.
    """
    for label in STATEFUL:
        shutil.copytree(stopped / f"one-{label}", folder / f"resumed-{label}")
    shutil.copytree(stopped / "one-gkd", folder / "lost-0")
    more = [part(label, f"resumed-{label}", **SHORT) for label in STATEFUL]
    more += [part(label, f"stopped-{label}", stop=2, **SHORT) for label in STATEFUL]
    more += [part("gkd", "tied", student=tied[0]), part("gkd", "tied-stopped", stop=2, student=tied[0], **SHORT)]
    more += [part("distillm2", "uneven", **UNEVEN), part("kd", "half", precision="bfloat16")]
    more += [part("gkd", "half", precision="bfloat16")]
    more += [part("gkd", "lost", apart=True, **SHORT)]
    more += [part(label, name, **training) for (name, label), training in OTHER_STEPS.items()]
    more += [
        part("gkd", adapter, sections=sections, micro_batch=2, gradient_checkpointing=adapter == "lora")
        for adapter, sections in ADAPTED.items()
    ]
    more += [part("kd", "half-way", stop=3, sections=ADAPTED["lora"], **KEPT)]
    more += [part("opd", "engine", sections=engine(server, folder))]
    return Group(place[0], folder, cut, [*map(part, CUT if cut else LABELS), *more])


def engine(server, folder) -> dict:
    word = f"vllm:m@{server.url},weights={folder / 'shared'}"
    return {"rollout": {"engine": word, "sync_every": 2, "temperature": 0.0, "max_new_tokens": 8}}


@pytest.fixture(scope="module")
def server(place):
    with serving(place[0][0]) as started:
        yield started


@pytest.fixture(scope="module")
def both(place, stopped, tied, server, tmp_path_factory):
    """One launch for whole and cut: {"ddp": (results, states, folder), "fsdp": …}."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("ddp", "fsdp")}
    groups = [group(place, stopped, tied, server, folder, name == "fsdp") for name, folder in folders.items()]
    found = on_two(groups, place[1])
    return {name: (*ends, folder) for (name, folder), ends in zip(folders.items(), found, strict=True)}


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def two(request, both):
    return both[request.param]


def test_fsdp_cuts_the_student_and_ddp_does_not(two):
    _, states, folder = two
    shares = {s["share"] for state in states for s in state.values() if isinstance(s, dict)}
    assert shares == {1.0} if folder.name.startswith("ddp") else all(0.45 < share < 0.55 for share in shares)


def follows(label) -> bool:
    """Whether the teacher is the student as it moves."""
    asking = method(label).needs.asking
    return asking is not None and asking.model in ("live", "ema")


@pytest.mark.parametrize("label", LABELS)
def test_two_processes_equal_one(whole, both, label):
    results, states, _ = both["ddp"]
    close(whole[label], results[label])
    for state in states:
        state[label].pop("whole_between")
    near(states[0][label], states[1][label], 0.0)  # to the last bit


def test_there_are_methods_of_many_kinds_to_cut():
    """All that differ in needs alone are among them, those that are refused and those with a state included."""
    assert len({kind(label) for label in LABELS}) == len(CUT) > 34 and {*STATEFUL[:4]} <= {*CUT}
    assert {method(label).needs for label in CUT} == {method(label).needs for label in LABELS}
    assert any(map(follows, CUT))


@pytest.mark.parametrize("label", CUT)
def test_two_processes_with_a_part_of_the_student_each_equal_one(whole, both, label):
    results, states, _ = both["fsdp"]
    if follows(label):  # refused: a cut student cannot be its own teacher
        assert label not in results and "launch without FSDP" in str(states[0][label])
        return
    close(whole[label], results[label])
    # Nobody but the first is given the whole student at the end.
    assert states[1][label].pop("weights") is None and states[0][label].pop("weights") > 0
    spans = [state[label].pop("whole_between") for state in states]
    assert spans[0][1] <= spans[1][0]  # one process after the other holds the whole student while it is read
    near(states[0][label], states[1][label], 0.0)  # to the last bit


def test_the_table_of_two_processes_shows_every_method(whole, two):
    shown = {label: one for label, one in whole.items() if label in two[0]}
    found = table(shown, two[0], two[0])
    assert (
        found.count("\n") == len(shown) + 2
        and len(shown) >= len(CUT) - sum(map(follows, CUT))
        and "| distillm2 | " in found
    )


def test_processes_may_have_another_number_of_micro_batches(place, two):
    close(result(make("distillm2", *place, **UNEVEN)), two[0]["uneven:distillm2"])


def test_two_processes_in_bfloat16(place, two):
    one, other = result(make("kd", *place, precision="bfloat16")), two[0]["half:kd"]
    assert other.losses == pytest.approx(one.losses, rel=1e-2)
    # The copy that samples: cut over the processes, its weights come together in bfloat16 alone.
    own = result(make("gkd", *place, precision="bfloat16"))
    assert two[0]["half:gkd"].losses[0] == pytest.approx(own.losses[0], rel=1e-2)
    wide = result(make("kd", *place)).losses
    assert one.losses == pytest.approx(wide, rel=5e-2) and one.losses != pytest.approx(wide, rel=1e-6)


@pytest.fixture(scope="module")
def undisturbed(place):
    return {label: result(make(label, *place, name=f"undisturbed-{label}", **SHORT)) for label in STATEFUL}


@pytest.mark.parametrize("label", STATEFUL)
def test_a_run_goes_on_with_another_number_of_processes(place, two, undisturbed, label):
    """From one to two and from two to one: buffer, state, costs and the count of cut responses included."""
    results, _, folder = two
    assert any("were cut to training.max_tokens" in warning for warning in undisturbed[label].warnings)
    close(undisturbed[label], results[f"resumed-{label}:{label}"])
    left = torch.load(folder / f"stopped-{label}" / "checkpoint.pt", weights_only=True)
    assert left["step"] == 1 and all(type(t) is torch.Tensor for t in left["student"].values())
    steps = []
    resumed = make(label, *place[:2], folder, name=f"stopped-{label}", **SHORT)
    close(undisturbed[label], result(resumed, lambda stage, done, *_: steps.append(done) if stage == "train" else None))
    assert steps == [2, 3, 4]


def test_a_head_that_is_the_embedding_stays_it(place, tied, two):
    results, _, folder = two
    close(result(make("gkd", tied, *place[1:], name="tied")), results["tied:gkd"])
    resumed = result(make("gkd", tied, place[1], folder, name="tied-stopped", **SHORT))
    close(result(make("gkd", tied, *place[1:], name="tied-short", **SHORT)), resumed)


def test_a_checkpoint_that_not_all_processes_see_is_one_line_of_each(two):
    for rank, state in enumerate(two[1]):
        line = state["lost:gkd"]
        assert "process 0 of 2 finds the checkpoint of step 1 and process 1 of 2 finds no checkpoint" in line
        assert f"lost-{rank}" in line and line.endswith("one shared disk") and "\n" not in line


def test_grouped_micro_batches_and_optimizers_on_two_processes(place, two):
    results, states, folder = two
    cut = folder.name.startswith("fsdp")
    assert "master_weights=optimizer is for one process" in states[0]["master:kd"]
    if cut:
        assert "optimizer=muon cannot be sharded" in states[1]["muon:kd"]
    refused = {("master", "kd"), *([("muon", "kd")] if cut else [])}
    for name, label in OTHER_STEPS.keys() - refused:
        one = result(make(label, *place, name=f"one-{name}", **OTHER_STEPS[name, label]))
        close(one, results[f"{name}:{label}"], weights=2e-3 if name == "muon" else 1e-4)


def test_an_adapter_on_two_processes_equals_one(place, two):
    results, states, folder = two
    share = 0.5 if folder.name.startswith("fsdp") else 1.0
    for adapter, sections in ADAPTED.items():
        close(result(make("gkd", *place, name=f"one-{adapter}", sections=sections)), results[f"{adapter}:gkd"])
        assert [state[f"{adapter}:gkd"]["share"] for state in states] == [share] * 2
    whole = make("kd", *place, name="adapted", sections=ADAPTED["lora"], steps=4)
    resumed = make("kd", *place[:2], folder, name="half-way", sections=ADAPTED["lora"], **KEPT)
    close(result(whole), result(resumed))


def test_an_engine_samples_the_student_of_two_processes(place, server, two):
    results, _, folder = two
    alone = make("opd", *place[:2], folder, name="alone", sections=engine(server, folder))
    close(result(alone), results["engine:opd"])
    assert [row["buffer_age"] for row in results["engine:opd"].curve] == [0, 1, 0]


def test_neighbours_of_another_length_leave_a_token_alone(place):
    """Hidden states, and so the likelihood of every token, alone and beside longer prompts and responses."""
    seen = []
    collect = Rollouts.collect

    def keep(self, *args):
        seen.append(collect(self, *args))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rollouts, "collect", keep)
        job = make("distillm2", *place, steps=1)
        outcome = loop.train(job, lambda *_: None)
    assert len({len(s.prompt) for s in seen[0]}) > 2 and len({len(s.response) for s in seen[0]}) > 2
    student = Student(outcome.model, len(outcome.tokenizer))
    pad = load_tokenizer(job.student).pad_token_id
    together = student.log_likelihood(collate(seen[0], pad, None, "cpu"))
    alone = torch.cat([student.log_likelihood(collate([s], pad, None, "cpu")) for s in seen[0]])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    other = student.log_likelihood(collate(seen[0], 5, None, "cpu"))  # what the padding holds
    torch.testing.assert_close(together, other, rtol=0, atol=0)
