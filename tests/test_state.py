"""What changes while training: schedules in closed form, moved once per optimizer step, saved and restored to a bit."""

import math

import pytest
import torch
from tiny_runs import STEPS, make, method, pair, quiet, result

from harness.method import Step
from harness.training.loop import train
from harness.training.rollouts import Rollouts
from harness.types import Source

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def place(prompts_file, tmp_path_factory):
    return pair(tmp_path_factory.mktemp("pair")), prompts_file, tmp_path_factory.mktemp("runs")


def walk(of, reports, total=None):
    """The method's state after each report, one a step."""
    states = []
    for i, report in enumerate(reports):
        of.after_step(Step(i, total or len(reports), 0.5), report)
        states.append(dict(of.state))
    return states


def test_taid_moves_by_momentum_and_never_behind_the_line():
    losses = [4.0, 3.0, 3.5, 3.5, 1.0]
    of = method("taid", {"start": 0.2, "end": 0.9, "rate": 0.3, "momentum": 0.8})
    assert of.ratio == 0.2
    states = walk(of, [{"loss": x} for x in losses], total=1000)
    r, m = 0.2, 0.0
    for i, state in enumerate(states):
        if i:
            m = 0.8 * m + 0.2 * (losses[i - 1] - losses[i]) / losses[i - 1]
            r = r + 0.3 / (1 + math.exp(-m)) * (1 - r)
        r = min(0.9, max(0.2 + 0.7 * (i + 1) / 1000, r))
        assert state["ratio"] == pytest.approx(r, rel=1e-12) and state["momentum"] == pytest.approx(m, abs=1e-15)
    line = walk(method("taid", {"start": 0.4, "rate": 0.0}), [{"loss": 1.0}] * 10)
    assert [s["ratio"] for s in line] == pytest.approx([0.4 + 0.6 * i / 10 for i in range(1, 11)])
    release = walk(method("taid@release", {"start": 0.0}), [{"loss": 9.0, "cross_entropy": x} for x in (4.0, 2.0)], 100)
    assert release[1]["momentum"] == pytest.approx(0.01 * 0.5)  # of the cross-entropy, which halved
    assert walk(method("taid"), [{"loss": 0.0}] * 3)[-1]["ratio"] == 1.0  # a loss of 0 divides nothing


def test_distillm_raises_its_threshold_with_the_validation_loss():
    of = method("distillm", {"threshold": 0.0, "epsilon": 0.1, "rise": 0.1}, plain=True)
    seen = [5.0, 5.05, 5.15, 5.1, 5.5, 5.7, 5.2, 5.3]
    rises = [0, 0, 1, 0, 1, 1, 0, 1]  # at least epsilon above the one before
    states = walk(of, [{"validation_loss": x} for x in seen])
    assert [s.get("threshold", 0.0) for s in states] == pytest.approx([0.1 * sum(rises[: i + 1]) for i in range(8)])
    before = dict(of.state)
    of.after_step(Step(8, 9, 0.5), {"loss": 1.0})  # a step without a validation
    assert of.state == before
    of.state["threshold"] = 0.95
    of.after_step(Step(8, 9, 0.5), {"validation_loss": 50.0})
    assert of.threshold == 1.0

    released = method("distillm@release", {"threshold": 0.0, "epsilon": 0.1, "rise": 0.1}, plain=True)
    states = walk(released, [{"validation_loss": x} for x in seen])
    rises = [0, 0, 1, 0, 1, 1, 0, 0]  # above 5.0, then 5.15, then 5.5, then 5.7
    assert [s.get("threshold", 0.0) for s in states] == pytest.approx([0.1 * sum(rises[: i + 1]) for i in range(8)])


def test_distillm_samples_less_and_replays_more_as_time_goes():
    """A share phi (1 - s) of the steps is fresh, phi s replayed, 1 - phi data: counted over a grid of draws."""
    of = method("distillm", {"threshold": 0.6})
    for index in (0, 25, 50, 75, 99):
        kinds = [of.sources(Step(index, 100, (d + 0.5) / 1000))[0] for d in range(1000)]
        s = index / 100
        counts = [kinds.count(k) for k in (Source.STUDENT, Source.REPLAY, Source.DATA)]
        assert counts == pytest.approx([600 * (1 - s), 600 * s, 400], abs=1)
    never = method("distillm", {"threshold": 0.0})
    assert {never.sources(Step(i, 9, d / 10))[0] for i in range(9) for d in range(10)} == {Source.DATA}


def test_distillm2_keeps_its_first_gaps_and_grows_its_beta(place):
    of = method("distillm2")
    walk(of, [{"gap_teacher": 0.3, "gap_student": -0.1}, {"gap_teacher": 0.9, "gap_student": 0.9}])
    assert of.state == {"first_gaps": [0.3, -0.1]}
    from test_objectives import Case

    plain, grown = Case("distillm2", hard=False), Case("distillm2", hard=False)
    plain.method = method("distillm2", {"growth": 0.0})
    plain.method.state = dict(grown.method.state)
    for index, beta in ((0, 1.0), (10, 1.1), (25, 1.25), (50, 1.5), (75, 1.5), (99, 1.5)):
        values = []
        for case in (plain, grown):
            tokens = case.tokens()
            tokens.step = Step(index, 100, 0.5)
            values.append(case.method.objective(tokens))
        ratio = values[1] / values[0]
        torch.testing.assert_close(ratio[:6], torch.full((6,), beta, dtype=torch.float64))  # student's text
        torch.testing.assert_close(ratio[6:], torch.full((4,), 2 - beta, dtype=torch.float64))


def test_the_first_gap_is_the_mean_over_a_sides_sequences(place):
    """exp(mean log p) - exp(mean log q) of every sequence of the step, whatever its length, each side for itself."""
    from test_objectives import texts_of

    from harness.models.files import load_model

    seen = []
    collect = Rollouts.collect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rollouts, "collect", lambda *args: seen.append(collect(*args)) or seen[-1])
        job = make("distillm2", *place, steps=1, micro_batch=5)
        train(job, quiet)
    student, teacher = (load_model(m).double() for m in (job.student, job.teacher))
    gaps = {"teacher": [], "student": []}
    for s, text in zip(seen[0], texts_of(seen[0], student, teacher, student, -1, Step(0, 1, 0.5), None), strict=True):
        gap = math.exp(text.of(text.p).mean()) - math.exp(text.of(text.q).mean())
        gaps[str(s.source)].append(gap if s.source is Source.TEACHER else -gap)
    assert len({len(s.response) for s in seen[0]}) > 3
    expected = [sum(g) / len(g) for g in gaps.values()]
    assert job.method.state["first_gaps"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("label", ["taid", "distillm2", "distillm"])
def test_state_moves_once_per_optimizer_step(place, label, monkeypatch):
    """TAID's released code moves t at every micro-batch."""
    job = make(label, *place, micro_batch=1)
    moved, own = [], type(job.method).after_step

    def count(self, step, report):
        moved.append(step.index)
        own(self, step, report)

    monkeypatch.setattr(type(job.method), "after_step", count)
    train(job, quiet)
    assert moved == list(range(STEPS))


class Killed(Exception):
    pass


# An optimizer this hot lets the validation loss rise, so that the threshold does, and replays follow.
HOT = {"learning_rate": 0.3, "steps": 12, "schedule": "constant", "checkpoint_every": 1}
RISING = {"threshold": 0.0, "rise": 0.5, "validate_every": 1, "epsilon": 0.0, "capacity": 8}
STATEFUL = [
    ("taid", {}, {}),
    ("taid@release", {}, {}),
    ("distillm", RISING, HOT),
    ("distillm2", {}, {}),
    ("minillm", {}, {}),
    ("skd", {}, {}),
    ("gkd", {}, {}),
    ("vcrd@shuffled", {}, {}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("label", "settings", "training"), STATEFUL)
def test_a_run_resumed_in_its_middle_ends_the_same_to_the_bit(place, tmp_path, label, settings, training):
    models, prompts, _ = place
    training = {"steps": 6, "checkpoint_every": 1} | training
    cut_at = training["steps"] - 3
    whole = result(make(label, models, prompts, tmp_path, settings=settings, name="whole", **training))

    def kill(stage, done, total, words):
        if stage == "train" and done == cut_at:
            raise Killed

    def job():
        return make(label, models, prompts, tmp_path, settings=settings, name="cut", **training)

    with pytest.raises(Killed):
        result(job(), kill)
    stages = []
    resumed = result(job(), lambda stage, done, *_: stages.append(done) if stage == "train" else None)
    assert stages == list(range(cut_at, training["steps"] + 1))  # the step before the cut was not saved yet
    assert torch.equal(whole.weights, resumed.weights)
    assert whole.curve == resumed.curve and whole.state == resumed.state and whole.cost == resumed.cost
    if label == "distillm":
        assert whole.state["threshold"] >= 0.5
        ages = [row["buffer_age"] for row in whole.curve]
        assert any(age > 0 for age in ages[:cut_at]) and any(age > 0 for age in ages[cut_at:])


def test_a_buffer_that_is_to_be_full_first_is_not_replayed_before(place):
    settings = {"threshold": 1.0, "capacity": 13, "full": True}
    ages = [row["buffer_age"] for row in result(make("distillm", *place, settings=settings, steps=8)).curve]
    early = [row["buffer_age"] for row in result(make("distillm", *place, settings=settings | {"full": False})).curve]
    assert ages[:3] == [0, 0, 0] and max(ages) > 0  # six responses a step: 13 of them after three steps
    assert any(early[:3])


def test_the_buffer_holds_the_latest_responses_and_says_how_old_they_are(place, monkeypatch):
    kept = []
    keep = Rollouts._keep

    def look(self, made):
        keep(self, made)
        kept.append([s.sampled_at for s in self.buffer])

    monkeypatch.setattr(Rollouts, "_keep", look)
    job = make("distillm", *place, settings={"threshold": 1.0, "capacity": 8}, steps=8)
    found = result(job)
    assert all(len(made) <= 8 and made == sorted(made) for made in kept) and len(kept[-1]) == 8
    for made in kept[1:]:
        assert made[-1] > made[0] and made.count(made[-1]) == 6  # the new ones in, the oldest out
    ages = [row["buffer_age"] for row in found.curve]
    assert max(ages) > 1 and {row["on_policy"] for row in found.curve} == {1.0}
    replayed = [i for i, age in enumerate(ages) if age > 0]
    for i in replayed:
        latest = max(s for made in kept for s in made if s < i)
        assert ages[i] >= i - latest
