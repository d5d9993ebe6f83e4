"""What must not change a run of any method: micro-batches, order, processes, and the width of the checkpoints.

Curves agree to 1e-5 and weights to 1e-4: where a gradient is all rounding, so is the direction in which Adam moves.
"""

import random

import pytest
import torch
from tiny_runs import close, distinct, make, near, pair, result
from transformers import AutoModelForCausalLM, AutoTokenizer
from two_processes import on_two, table

from harness.models.files import load_tokenizer
from harness.training import loop
from harness.training.batching import lay_out
from harness.training.objective import Student
from harness.training.rollouts import Rollouts

LABELS = distinct()


@pytest.fixture(scope="module")
def place(prompts_file, tmp_path_factory):
    return pair(tmp_path_factory.mktemp("pair")), prompts_file, tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def whole(place):
    """Every method's run in one micro-batch by one process."""
    return {label: result(make(label, *place)) for label in LABELS}


def test_the_runs_see_what_is_to_be_invariant(whole):
    """Text of unequal length, of every kind, weights that differ, a buffer that is read, states that move."""
    texts = {label: [(row["on_policy"], row["buffer_age"]) for row in run.curve] for label, run in whole.items()}
    assert texts["distillm"] == [(1.0, 0.0), (1.0, 1.0), (0.0, 0.0)]  # samples, replay, data
    assert [share for share, _ in texts["gkd"]] == [1.0, 0.0, 0.0]
    assert all(whole[label].state for label in ("taid", "distillm", "distillm2"))
    for name in ("eopd", "iw_opd", "pw_opd", "vcrd"):
        assert whole[name].losses != pytest.approx(whole[f"{name}@shuffled"].losses, rel=1e-4)
    unsure = [row["unsure"] for row in whole["eopd"].curve]
    assert all(0.1 < share < 0.9 for share in unsure)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("size", [1, 4])  # one sequence each; 4 and 2, or 4, 4 and 4
def test_the_split_into_micro_batches(place, whole, label, size):
    close(whole[label], result(make(label, *place, micro_batch=size)))


@pytest.mark.parametrize("label", LABELS)
def test_the_order_within_the_batch(place, whole, label, monkeypatch):
    """Neither the order in which texts come nor the one in which they are laid out."""
    collect = Rollouts.collect

    def shuffled(self, step, sources, cost):
        found = collect(self, step, sources, cost)
        random.Random(step.index).shuffle(found)
        return found

    monkeypatch.setattr(Rollouts, "collect", shuffled)
    monkeypatch.setattr(loop, "micro_batches", lambda found, size: [found[:5], found[5:]])
    close(whole[label], result(make(label, *place)))


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
def test_the_width_of_the_checkpoints(place, padded, whole, label):
    """Student and teacher share a tokenizer of 258 tokens; the rest of 260, 264, 270 or 300 rows never matters."""
    close(whole[label], result(make(label, padded, *place[1:], name="padded")))


@pytest.fixture(scope="module")
def two(place, tmp_path_factory):
    return on_two(*place[:2], tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("label", LABELS)
def test_two_processes_equal_one(whole, two, label):
    results, states = two
    close(whole[label], results[label])
    near(states[0][label], states[1][label], 0.0)  # to the last bit


def test_the_table_of_two_processes_shows_every_method(whole, two):
    found = table(whole, two[0])
    assert found.count("\n") == len(LABELS) + 2 and "| distillm2 | " in found


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
    together = student.log_likelihood(lay_out(seen[0], pad, None, "cpu"))
    alone = torch.cat([student.log_likelihood(lay_out([s], pad, None, "cpu")) for s in seen[0]])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    other = student.log_likelihood(lay_out(seen[0], 5, None, "cpu"))  # what the padding holds
    torch.testing.assert_close(together, other, rtol=0, atol=0)
