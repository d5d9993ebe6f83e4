"""The loop: what must not change a result does not, and what must be kept is kept."""

import dataclasses

import pytest
import torch
from conftest import byte_tokenizer

from harness import recipe, registry
from harness.errors import RunFailed
from harness.method import Method, Needs
from harness.models import files as harness_models
from harness.options import build
from harness.training.job import TrainingData, TrainingJob, TrainingRun
from harness.training.loop import train
from harness.training_data.examples import load
from harness.types import Source

pytestmark = pytest.mark.slow


def quiet(*_):
    return None


@pytest.fixture
def job(models, prompts_file, tmp_path):
    """A job of four steps for a method by name; sections of the recipe can be changed by keyword."""
    student, teacher = map(str, models)

    def make(method, settings=None, seed=0, folder="run", checkpoint_every=0, **training):
        plan = {
            "training": {
                "steps": 4,
                "batch": 6,
                "micro_batch": 6,
                "learning_rate": 1e-3,
                "threads": 1,
                "max_tokens": 64,
            }
            | {"checkpoint_every": checkpoint_every}
            | training,
            "rollout": {"max_new_tokens": 8},
            "teacher_text": {"max_new_tokens": 10, "temperature": 1.0},
            "data": {"prompts": str(prompts_file), "labelled": str(prompts_file)},
        }
        chosen = recipe.from_table("test", plan, "test")
        if isinstance(method, str):
            found = registry.find(registry.METHODS, method)
            method = found(build(found.Config, settings or {}, method))
        (tmp_path / folder).mkdir(exist_ok=True)
        return TrainingJob(
            TrainingRun(method, None, "test", seed, {}, f"{method.name}-{seed}"),
            chosen,
            harness_models.locate(student),
            harness_models.locate(teacher),
            TrainingData(*(load(str(prompts_file), chosen.data, labelled=flag) for flag in (False, True))),
            folder=tmp_path / folder,
            cache=tmp_path,
        )

    return make


def weights(outcome):
    return torch.cat([p.detach().flatten() for p in outcome.model.parameters()])


@pytest.mark.parametrize("method", ["sft", "seqkd", "kd", "rkl", "gkd", "vcrd"])
def test_micro_batches_change_only_rounding(job, method):
    whole = train(job(method, micro_batch=6), quiet)
    parts = train(job(method, micro_batch=2), quiet)
    # Four Adam steps move a weight by about 4e-3; where its gradient is all rounding, so is a part of the move.
    torch.testing.assert_close(weights(whole), weights(parts), rtol=1e-4, atol=1e-4)
    losses = [[row["loss"] for row in outcome.curve] for outcome in (whole, parts)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_training_moves_the_student_and_is_reproducible(job):
    first, second, other = (train(job("kd", seed=seed), quiet) for seed in (0, 0, 1))
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(other))
    assert first.curve[-1]["loss"] < first.curve[0]["loss"]


def test_vcrd_without_a_gate_is_its_base_method_bit_for_bit(job):
    base = train(job("gkd", {"beta": 0.3}), quiet)
    ours = train(job("vcrd", {"gate": "one", "beta": 0.3}), quiet)
    gated = train(job("vcrd", {"gate": "sigmoid", "beta": 0.3}), quiet)
    assert torch.equal(weights(base), weights(ours))
    assert not torch.equal(weights(base), weights(gated))


def test_off_policy_gkd_at_beta_zero_is_kd(job):
    assert torch.equal(
        weights(train(job("gkd", {"beta": 0.0, "on_policy": 0.0}), quiet)), weights(train(job("kd"), quiet))
    )


def test_shuffled_control_keeps_the_mean_weight_and_changes_the_run(job):
    plain = train(job("vcrd", {"step": "token"}), quiet)
    shuffled = train(job("vcrd", {"step": "token", "shuffle": True}), quiet)
    assert plain.curve[0]["on_policy"] == shuffled.curve[0]["on_policy"]
    assert not torch.equal(weights(plain), weights(shuffled))


def test_the_teacher_gets_no_gradient_and_costs_are_counted(job):
    outcome = train(job("gkd", {"on_policy": 1.0}), quiet)
    cost = outcome.cost
    assert cost.steps == 4 and cost.seconds > 0 and cost.peak_memory_bytes > 0
    assert cost.student_tokens == cost.teacher_forward_tokens > 0
    assert 0 < cost.generated_tokens <= 4 * 6 * 8
    assert {row["on_policy"] for row in outcome.curve} == {1.0}
    assert train(job("sft"), quiet).cost.teacher_forward_tokens == 0


def test_an_interrupted_run_ends_with_the_same_weights(job):
    whole = train(job("gkd", folder="whole"), quiet)

    class Stop(Exception):
        pass

    def interrupt(stage, done, total, words):
        if stage == "train" and done == 3:
            raise Stop

    with pytest.raises(Stop):
        train(job("gkd", folder="cut", checkpoint_every=2), interrupt)
    resumed = train(job("gkd", folder="cut", checkpoint_every=2), quiet)
    assert torch.equal(weights(whole), weights(resumed))
    assert [r["loss"] for r in whole.curve] == [r["loss"] for r in resumed.curve]
    assert dataclasses.replace(whole.cost, seconds=0, peak_memory_bytes=0) == dataclasses.replace(
        resumed.cost, seconds=0, peak_memory_bytes=0
    )


def test_a_damaged_checkpoint_is_named_and_training_starts_again(job):
    (job("sft").folder / "checkpoint.pt").write_bytes(b"PK\x03\x04 torn")
    outcome = train(job("sft"), quiet)
    assert any("damaged" in warning for warning in outcome.warnings)
    assert torch.equal(weights(outcome), weights(train(job("sft", folder="other"), quiet)))


class Explodes(Method):
    name = "explodes"

    def sources(self, step):
        return (Source.DATA,)

    def objective(self, tokens):
        value = tokens.logits.logsumexp(-1)
        return value / 0.0 if tokens.step.index == 2 else value


def test_a_loss_that_is_not_a_number_names_step_and_tensor(job):
    with pytest.raises(
        RunFailed, match=r"the objective became NaN or infinite at token 0 of sequence 0, in micro-batch 1 of 1; step 2"
    ):
        train(job(Explodes()), quiet)


class Sees(Method):
    """Records what an objective is given."""

    name = "sees"
    needs = Needs(teacher="signal", segment="line")
    seen: list = []

    def sources(self, step):
        return (Source.DATA, Source.STUDENT)

    def objective(self, tokens):
        Sees.seen.append(tokens)
        return tokens.logits.logsumexp(-1)


def test_tokens_say_where_they_are(job):
    Sees.seen.clear()
    train(job(Sees(), steps=1, batch=3, micro_batch=8), quiet)
    (tokens,) = Sees.seen
    assert tokens.student.shape == tokens.teacher.shape == tokens.logits.shape
    assert tokens.logits.shape[1] == 258 and not tokens.teacher.requires_grad
    assert sorted(tokens.source) == [Source.DATA] * 3 + [Source.STUDENT] * 3
    data = tokens.from_source(Source.DATA)
    assert tokens.sampler_log_prob[data].isnan().all() and tokens.sampler_log_prob[~data].isfinite().all()
    for i in range(6):
        mine = tokens.sequence == i
        assert tokens.position[mine].tolist() == list(range(int(tokens.length[mine][0])))
    newline = byte_tokenizer()("\n")["input_ids"][0]
    begins = torch.cat([torch.tensor([True]), tokens.segment_id.diff() == 1])
    after_newline = torch.cat([torch.tensor([True]), tokens.labels[:-1] == newline])
    assert torch.equal(begins, after_newline | (tokens.position == 0))
    assert int(tokens.segment_id[-1]) > 5


def test_on_policy_log_probs_equal_a_fresh_forward(job):
    Sees.seen.clear()
    train(job(Sees(), steps=1, batch=3, micro_batch=8), quiet)
    (tokens,) = Sees.seen
    fresh = tokens.logits.detach().log_softmax(-1).gather(-1, tokens.labels[:, None])[:, 0]
    student = tokens.from_source(Source.STUDENT)
    torch.testing.assert_close(fresh[student], tokens.sampler_log_prob[student], rtol=1e-4, atol=1e-4)
