"""What is decided over a whole optimizer step or an epoch, and the limits of the objectives that rank, mix and mask."""

import dataclasses
import math

import pytest
import torch
from test_objectives import SPECIAL, Case
from tiny_runs import BATCH, make, method, pair, quiet, result

from harness import losses, options
from harness.method import Method, Needs, Step, WholeStep
from harness.options import option
from harness.testing import check_method
from harness.training.loop import train
from harness.training.report import Cost
from harness.training.rollouts import Rollouts
from harness.types import Source

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def place(prompts_file, tmp_path_factory):
    return pair(tmp_path_factory.mktemp("pair")), prompts_file, tmp_path_factory.mktemp("runs")


def collected(job):
    """The sequences of every step, and the curve."""
    seen, collect = [], Rollouts.collect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rollouts, "collect", lambda *args: seen.append(collect(*args)) or seen[-1])
        return seen, train(job, quiet)


# -- texts drawn once per epoch -------------------------------------------------------------------------------------


def test_an_epochs_texts_are_those_of_the_student_that_enters_it(place):
    """12 prompts in batches of 6: the second step trains on text that the first one's student sampled."""
    seen, outcome = collected(make("distillm2@paper", *place, steps=5))
    own = [[s for s in step if s.source is Source.STUDENT] for step in seen]
    assert [{s.sampled_at for s in step} for step in own] == [{0}, {0}, {2}, {2}, {4}]
    assert [row["buffer_age"] for row in outcome.curve] == [0.0, 1.0, 0.0, 1.0, 0.0]
    for first in (0, 2):
        assert sorted(s.example for s in own[first] + own[first + 1]) == list(range(12))
    # Texts of one student: without an update between them, sampled one step at a time, they are the same.
    frozen, _ = collected(make("distillm2@paper", *place, steps=2, learning_rate=0.0))
    assert [s.response for s in own[0]] == [s.response for s in frozen[0] if s.source is Source.STUDENT]
    assert [s.response for s in own[1]] == [s.response for s in frozen[1] if s.source is Source.STUDENT]
    # Nothing is drawn that no step trains on: five steps are charged 30 responses, not 36.
    made = sum(len(s.response) for step in own for s in step)
    teacher = train(make("kd", *place, steps=2), quiet).cost.generated_tokens
    assert outcome.cost.generated_tokens == made + teacher


def test_an_epoch_that_ends_within_a_batch(place):
    """Batches of 5 of 12 prompts: the third step ends one epoch and enters the next."""
    seen, _ = collected(make("distillm2@paper", *place, steps=5, batch=5))
    made = [sorted(s.sampled_at for s in step if s.source is Source.STUDENT) for step in seen]
    assert made == [[0] * 5, [0] * 5, [0, 0, 2, 2, 2], [2] * 5, [2, 2, 2, 2, 4]]


def test_processes_share_an_epochs_texts(place):
    """Two processes draw what one draws: the same prompts at the same places, each its own."""
    job = make("distillm2@paper", *place, steps=5, batch=5)  # the last place opens an epoch: one process draws nothing
    model = train(make("distillm2@paper", *place, steps=1, learning_rate=0.0), quiet)
    from harness.models.generate import Generator

    speaker = Generator(model.model, model.tokenizer, 8)
    rollouts = [Rollouts(job, speaker, p, n) for p, n in ((0, 1), (0, 2), (1, 2))]
    for index in range(5):
        step = Step(index, 5, 0.5)
        one, *two = (
            [(s.place, s.example, s.response) for s in r.collect(step, (Source.STUDENT,), Cost())] for r in rollouts
        )
        assert sorted(two[0] + two[1]) == one
        if index == 2:  # a checkpoint's responses find the process that trains on them
            resumed = [Rollouts(job, speaker, p, 2) for p in (0, 1)]
            for r in resumed:
                r.load_state(rollouts[0].state())
            assert len(rollouts[0].ahead) == 9 and {**resumed[0].ahead, **resumed[1].ahead} == rollouts[0].ahead
            assert [r.ahead.keys() for r in resumed] == [r.ahead.keys() for r in rollouts[1:]]
            rollouts[1:] = resumed


def test_steps_count_their_epochs(place):
    seen = []

    class Watch(type(method("kd"))):
        """Notes where training stands."""

        name = "watch"

        def objective(self, tokens):
            seen.append((tokens.step.epoch, tokens.step.epochs))
            return super().objective(tokens)

    job = make("kd", *place, steps=3)
    job.run.method = Watch()
    train(job, quiet)
    assert seen == [(0.0, 1.5), (0.5, 1.5), (1.0, 1.5)]


# -- DistiLLM-2 as published ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "expected"),
    [
        ("paper", {0.0: 0.5, 0.5: 0.5, 1.0: 2 / 3, 1.5: 2.5 / 3, 2.0: 1.0, 2.5: 1.0}),
        (
            "printed",
            {0.0: 0.5, 0.25: 1 / 3 + 0.25, 0.5: 1 / 3 + 0.5, 0.7: 1.0, 1.0: 2 / 3, 1.25: 2 / 3 + 0.25, 2.5: 1.0},
        ),
    ],
)
def test_beta_runs_from_a_half_to_one_and_the_teachers_text_loses_its_weight(algorithm, expected):
    of = method("distillm2@paper", {"algorithm": algorithm})
    for epoch, beta in expected.items():
        on_teacher, on_student = of._factors(Step(0, 9, 0.5, epoch, 3.0))
        assert (on_teacher, on_student) == pytest.approx(((1 - beta) / 2, beta / 2))
    assert of._factors(Step(8, 9, 0.5, 2.9, 3.0)) == (0.0, 0.5)  # gone, not small


def test_the_published_skew_is_one_per_step_and_side_and_rests_in_the_first_epoch():
    of = method("distillm2@paper")
    of.state = {"first_gaps": [0.3, 0.1]}
    values = torch.tensor([[0.5]] * 2 + [[0.25]] * 4 + [[0.097]] * 3)
    sequence = torch.tensor([0, 0, 1, 1, 1, 1, 2, 2, 2])
    sources = (Source.TEACHER, Source.TEACHER, Source.STUDENT)
    skew, gap = of.step_features(values, WholeStep(sequence, sources, (0, 1, 0), Step(5, 9, 0.5, 1.0, 3.0))).unbind(1)
    assert gap[:6].tolist() == pytest.approx([0.375] * 6) and gap[6:].tolist() == pytest.approx([0.097] * 3)
    assert skew[0] == pytest.approx(min(max(1 - 0.9 * 0.3 / (0.375 + 1e-5), 0.01), 0.1))
    assert skew[0] == 0.1 and skew[8].item() == pytest.approx(1 - 0.9 * 0.1 / (0.097 + 1e-5), rel=1e-4)
    first = of.step_features(values, WholeStep(sequence, sources, (0, 1, 0), Step(2, 9, 0.5, 0.9, 3.0)))
    assert first[:, 0].tolist() == pytest.approx([0.1] * 9)


# -- ranks, masks and mixtures --------------------------------------------------------------------------------------


def test_special_tokens_of_the_text_carry_no_loss(place):
    case = Case("topk_opd")
    weight = case.method.weight(case.tokens())
    assert weight.tolist() == [float(y not in SPECIAL) for y in case.labels.tolist()] and 0 < weight.sum() < 10
    seen, weigh = [], type(case.method).weight
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            type(case.method), "weight", lambda self, t: seen.append((t.labels, weigh(self, t))) or seen[-1][1]
        )
        outcome = train(make("topk_opd", *place), quiet)
    labels, weights = (torch.cat(part) for part in zip(*seen, strict=True))
    special = torch.isin(labels, torch.tensor(outcome.tokenizer.all_special_ids))
    assert special.any() and torch.equal(weights, (~special).float())


def test_a_bucket_bounds_the_reverse_kl_and_k_v_reaches_it():
    case = Case("topk_opd@bucket", hard=False)
    full = losses.reverse_kl(case.student, case.teacher)
    found = []
    for k in (1, 3, 8, 9):
        case.method = method("topk_opd@bucket", {"k": k})
        found.append(case.method.objective(case.tokens()))
        assert (found[-1] >= -1e-12).all() and (found[-1] <= full + 1e-9).all()
    torch.testing.assert_close(found[-1], full)
    assert (found[0] < full - 1e-3).any()


def test_on_the_students_support_a_dropped_token_gets_no_gradient():
    """The trap that the paper names: what neither support holds is not pulled, with a bucket it is."""
    case = Case("topk_opd@student")
    for rest, pulled in (("renormalised", False), ("bucket", True)):
        case.method = method("topk_opd@student", {"k": 2, "rest": rest})
        z = case.student.clone().requires_grad_()
        (grad,) = torch.autograd.grad(case.method.objective(case.tokens(z)).sum(), z)
        out = torch.ones_like(z, dtype=torch.bool).scatter_(1, z.topk(2, -1).indices, False)
        assert (grad[out].abs().max() > 1e-6) == pulled


def test_selectkd_accepts_by_the_teachers_rank():
    case = Case("selectkd", hard=False)
    rank = (case.teacher > case.teacher.gather(-1, case.student.argmax(-1, keepdim=True))).sum(-1)
    for k in (1, 2, 5, 9):
        case.method = method("selectkd", {"k": k})
        assert case.method.weight(case.tokens()).tolist() == pytest.approx([1.0 if r < k else 0.01 for r in rank])
    masked = method("selectkd@masked", {"k": 1})
    assert set(masked.weight(case.tokens()).tolist()) <= {0.0, 1.0}


def test_the_limits_of_todi():
    case = Case("todi", hard=False)
    forward, reverse = (f(case.student, case.teacher) for f in (losses.forward_kl, losses.reverse_kl))
    values = {}
    for beta in (0.0, 1.0, 1000.0):
        case.method = method("todi", {"beta": beta})
        values[beta] = case.method.objective(case.tokens())
    torch.testing.assert_close(values[0.0], (forward + reverse) / 2)
    log_p, log_q = case.teacher.log_softmax(-1), case.student.log_softmax(-1)
    larger = torch.maximum(log_p, log_q).exp() * (log_p - log_q).abs()
    torch.testing.assert_close(values[1000.0], larger.sum(-1), rtol=1e-6, atol=1e-6)
    assert (values[1.0] >= values[0.0]).all() and (values[1000.0] >= values[1.0]).all()


def test_the_limits_of_amid():
    case = Case("amid", hard=False)

    def value(**settings):
        case.method = method("amid", {"divergence": "forward_kl", **settings})
        return case.method.objective(case.tokens())

    torch.testing.assert_close(value(share=0.3, alpha=-1.0), losses.skew_kl(case.student, case.teacher, alpha=0.3))
    geometric = 0.3 * case.teacher.log_softmax(-1) + 0.7 * case.student.log_softmax(-1)
    torch.testing.assert_close(value(share=0.3, alpha=1.0), losses.forward_kl(geometric, case.teacher))
    torch.testing.assert_close(value(share=0.3, alpha=1 - 1e-4), value(share=0.3, alpha=1.0), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(value(share=0.0), losses.forward_kl(case.student, case.teacher))


def test_words_that_both_models_rule_out_add_nothing():
    for label in ("todi", "amid", "amid@release", "pw_opd", "eopd", "topk_opd", "topk_opd@bucket"):
        case = Case(label, hard=False)
        case.method = method(label, {"top_k": 3} if label == "eopd" else {"k": 3} if "topk" in label else None)
        case.labels = case.labels % 7
        z, t = case.student.clone(), case.teacher.clone()
        z[:, 7:], t[:, 7:] = -torch.inf, -torch.inf
        values = []
        for case.student, case.teacher in ((z, t), (z[:, :7], t[:, :7])):
            moved = case.student.clone().requires_grad_()
            values.append(case.method.objective(case.tokens(moved)))
            (grad,) = torch.autograd.grad(values[-1].sum(), moved)
            assert grad[:, :7].isfinite().all() and not grad.isnan().any(), label
        torch.testing.assert_close(*values)


def test_tip_keeps_the_share_and_the_confident_mistakes():
    of, whole = (
        method("tip", {"share": 0.5}),
        WholeStep(torch.zeros(6).long(), (Source.STUDENT,), (0,), Step(0, 9, 0.5)),
    )
    h = torch.tensor([0.0, 0.0, 1.0, 0.8, 0.1, 0.2])
    d = torch.tensor([9.0, 0.0, 0.0, 0.1, 0.2, 0.1])  # the first is sure and wrong
    assert of.step_features(torch.stack([h, d], 1), whole)[:, 0].tolist() == [1, 0, 1, 1, 0, 0]
    entropy = method("tip@entropy", {"share": 0.5}).step_features(torch.stack([h, d], 1), whole)
    assert entropy[:, 0].tolist() == [0, 0, 1, 1, 0, 1]
    same = of.step_features(torch.ones(6, 2), whole)[:, 0]
    assert same.sum() == 3  # equal scores: still the share
    drawn = [
        method("tip@release").step_features(torch.stack([h, d], 1), dataclasses.replace(whole, step=Step(i, 9, 0.5)))[
            :, 0
        ]
        for i in range(200)
    ]
    often = torch.stack(drawn).mean(0)
    assert all(int(kept.sum()) == 3 for kept in drawn) and often[2] > 0.9 > often[4] > often[1]


def test_reopold_masks_by_reward_and_then_by_entropy():
    of = method("reopold", {"share": 0.25})
    assert of.floor == pytest.approx(math.log(0.1) / 0.9)
    early, late = (WholeStep(torch.zeros(8).long(), (Source.STUDENT,), (0,), Step(i, 10, 0.5)) for i in (4, 5))
    entropy = torch.arange(8.0)[:, None]
    assert of.step_features(entropy, early).equal(entropy)
    assert of.step_features(entropy, late)[:, 0].tolist() == [0] * 6 + [1] * 2
    case = Case("reopold")
    z = case.student.clone()
    z[0, case.labels[0]] = z[0].max() + 20  # sure of a word that the teacher does not expect
    case.student = z
    assert case.method.measure(case.tokens())[0] == 0.0


def test_dpkd_is_the_pairs_loss_and_gradient():
    """Autograd through the loss of both texts of a prompt, against what is handed out to tokens."""
    for label in ("dpkd", "dpkd@distillm2"):
        case = Case(label)
        case.source = (Source.STUDENT, Source.TEACHER)
        z = case.student.clone().requires_grad_()
        log_q, log_p = (x.log_softmax(-1).gather(-1, case.labels[:, None])[:, 0] for x in (z, case.teacher))
        mean = label == "dpkd@distillm2"
        score = [(log_q - log_p)[a:b].sum() / (b - a if mean else 1) for a, b in ((0, 6), (6, 10))]
        loss = -torch.nn.functional.logsigmoid(0.2 * (score[1] - score[0]))
        (expected,) = torch.autograd.grad(loss, z)
        values = case.method.objective(case.tokens(z))
        ours = (values[:6].mean() + values[6:].mean()) / 2  # the loop's mean over sequences
        torch.testing.assert_close(ours, loss.detach().to(ours.dtype))
        torch.testing.assert_close(torch.autograd.grad(ours, z)[0], expected)


def test_imitkd_leaves_the_data_behind():
    of = method("imitkd")
    for index, share in ((0, 1.0), (50, 200**-0.5), (99, 200**-0.99)):
        kinds = [of.sources(Step(index, 100, (d + 0.5) / 1000))[0] for d in range(1000)]
        assert kinds.count(Source.DATA) == pytest.approx(1000 * share, abs=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eopd", "iw_opd", "pw_opd", "pw_opsd", "reopold", "sdpo", "selectkd", "tip", "vcrd"])
def test_every_weighting_method_has_its_control(place, name):
    """The same weights on other tokens: another loss, the same sum of weights."""
    runs = [result(make(label, *place, steps=1)) for label in (name, f"{name}@shuffled")]
    assert runs[0].losses != pytest.approx(runs[1].losses, rel=1e-6)
    assert runs[0].cost == runs[1].cost


# -- the contract ---------------------------------------------------------------------------------------------------


class Silent(Method):
    """Asks for step features and makes none."""

    name = "silent"
    needs = Needs(teacher="signal", step_features=True)

    def objective(self, tokens):
        return losses.forward_kl(tokens.student, tokens.teacher)


def test_what_a_method_measures_is_charged(place):
    """On the same texts: one pass for the objective, and one more for what is decided over the step."""
    plain, twice = (
        result(make(label, *place, steps=1, settings=s)).cost
        for label, s in (("gkd", {"beta": 1.0, "on_policy": 1.0}), ("tip", None))
    )
    assert twice["student_tokens"] == 2 * plain["student_tokens"]
    assert twice["teacher_forward_tokens"] == plain["teacher_forward_tokens"]


def test_a_method_that_measures_nothing_is_told_so():
    with pytest.raises(AssertionError, match="asks for step features; add a method measure"):
        check_method(Silent)


def test_a_setting_that_is_gained_leaves_earlier_specifications_alone():
    @dataclasses.dataclass(frozen=True)
    class Config:
        old: float = option(1.0, "first")
        new: int = option(3, "gained", before=0)
        more: float = option(0.5, "gained too", before=0.5)

    assert options.spelt(Config(new=0)) == {"old": 1.0}
    assert options.spelt(Config()) == {"old": 1.0, "new": 3, "more": 0.5}
    assert options.spelt(Config(new=0, more=0.7)) == {"old": 1.0, "new": 0, "more": 0.7}  # one of them speaks: all do
    assert options.spelt(method("kd").config) == dataclasses.asdict(method("kd").config)


def test_published_records_keep_their_ids_under_the_names_that_their_forms_have_now(tmp_path):
    import json
    from pathlib import Path

    from harness.plan import RunRequest, prepare

    now = {"eopd": "eopd@full", "pw_opd": "pw_opd@linear", "distillm2@paper": "distillm2@release-curriculum"}
    folder = Path(__file__).parent.parent / "results/objectives/records/amc23@micro"
    plan = prepare(RunRequest(list(now.values()), ["amc23@micro"], results=tmp_path))
    for (recorded, label), training in zip(now.items(), plan.trainings, strict=True):
        (old,) = (json.loads(f.read_text("utf-8")) for f in (folder / recorded).glob("*-s0-*") if _up_to_0_2(f))
        assert (training.label, training.training_id) == (label, old["training_id"])


def _up_to_0_2(file) -> bool:
    return file.stem.rpartition("-")[2] in {"85dbaa95", "73300bd0", "ff0eee81"}


def test_batch_is_what_the_epochs_are_counted_in():
    assert BATCH == 6  # the comments above say so
