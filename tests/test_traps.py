"""The known bugs of the public implementations, each with the test that ours does not share it.

The numbers are those of the list that this project keeps of them. Where another file holds the proof, its name stands
here, and the last test sees that it exists.
"""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_objectives import STEP, VOCAB, Case
from tiny_runs import BATCH, distinct, make, method, pair, quiet, result

from harness import losses
from harness.errors import BadInput
from harness.method import Method, Step, WholeStep, texts_of
from harness.models.files import load_tokenizer, locate
from harness.models.pair import agree
from harness.training.batching import collate, micro_batches
from harness.training.loop import train
from harness.training.rollouts import Rollouts
from harness.types import Source

torch.set_num_threads(1)

ELSEWHERE = {
    "1 split invariance": "test_invariance.py::test_the_width_of_the_checkpoints_the_order_of_the_batch_and_its_split",
    "1 over processes": "test_invariance.py::test_two_processes_equal_one",
    "2 what every reduction divides by": "test_objectives.py::test_the_loss_of_every_step_is_the_formula",
    "3 vocabulary: padded checkpoints": "test_invariance.py::test_the_width_of_the_checkpoints",
    "3 vocabulary: padded logits": "test_losses_robustness.py::test_padded_columns_never_matter",
    "4 finite in log space": "test_losses_robustness.py::test_finite_for_near_one_hot_and_huge_logits",
    "4 fp32 inside": "test_losses_robustness.py::test_bf16_inputs_are_computed_in_fp32",
    "4 alpha and beta below 0": "test_losses.py::test_value_is_the_published_formula",
    "5 soft cap and logit scale": "test_head.py::test_chunks_equal_the_full_computation",
    "5 by another implementation": "test_golden.py::test_chunked_losses_through_both_heads",
    "7 unequal lengths": "test_invariance.py::test_neighbours_of_another_length_leave_a_token_alone",
    "9 gradients, declared stops": "test_objectives.py::test_the_gradient_is_that_of_the_formula",
    "9 none into the teacher": "test_invariance.py::whole",  # which looks at the teacher of each of its runs
    "10 identities": "test_objectives.py::test_methods_meet_where_their_formulas_do",
    "10 D(p, p) = 0": "test_losses.py::test_equal_distributions_have_no_divergence_and_no_gradient",
    "10 direction": "test_losses.py::test_direction_on_an_asymmetric_two_point_distribution",
    "10 a KL, not a cross-entropy": "test_losses.py::test_forward_kl_is_a_kl_and_not_a_cross_entropy",
    "11 strength of the JSD": "test_losses.py::test_small_beta_weakens_the_gradient_while_zero_restores_it",
    "14 state": "test_state.py::test_a_run_resumed_in_its_middle_ends_the_same_to_the_bit",
    "14 once per step": "test_state.py::test_state_moves_once_per_optimizer_step",
    "15 signals agree": "test_signals.py::test_cached_hidden_states_train_as_the_live_teacher",
    "16 top-k": "test_signals.py::test_top_k_is_non_negative_and_a_lower_bound",
    "18 order of the vocabulary": "test_objectives.py::test_the_names_of_the_words_do_not_matter",
    "20 every variant runs": "test_invariance.py::whole",
}


@pytest.fixture(scope="module")
def place(prompts_file, tmp_path_factory):
    return pair(tmp_path_factory.mktemp("pair")), prompts_file, tmp_path_factory.mktemp("runs")


def collected(job):
    """The step's sequences of all sources, as the loop saw them, and the outcome."""
    seen, collect = [], Rollouts.collect
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Rollouts, "collect", lambda *args: seen.append(collect(*args)) or seen[-1])
        return seen, train(job, quiet)


class Length(Method):
    """The length of its response as every token's value."""

    name = "length"

    def __init__(self, reduction):
        super().__init__()
        self.reduction = reduction

    def sources(self, step):
        return (Source.DATA, Source.STUDENT)

    def objective(self, tokens):
        return tokens.length.double() + 0 * tokens.logits.sum(-1)


def test_1_the_denominator_is_counted_after_generation(place):
    """TRL's GKD divided by the tokens of the data's responses, which on-policy text replaces."""
    seen, outcome = collected(make(Length("token"), *place, steps=1))
    lengths = [len(s.response) for s in seen[0]]
    assert outcome.curve[0]["loss"] == pytest.approx(sum(n * n for n in lengths) / sum(lengths), rel=1e-6)


def test_2_every_reduction_is_the_one_it_is_named_after(place):
    """Three numbers that agree only where all responses are equally long."""
    found = {}
    for reduction in ("token", "sequence", "source"):
        seen, outcome = collected(make(Length(reduction), *place, steps=1, micro_batch=5))
        found[reduction] = outcome.curve[0]["loss"]
    sides = [[len(s.response) for s in seen[0] if s.source is source] for source in (Source.DATA, Source.STUDENT)]
    every = [n for side in sides for n in side]
    mean = [sum(n * n for n in side) / sum(side) for side in (every, *sides)]
    expected = {"token": mean[0], "sequence": sum(every) / len(every), "source": sum(mean[1:]) / 2}
    assert found == pytest.approx(expected, rel=1e-6)
    assert len({round(v, 2) for v in found.values()}) == 3


def test_3_tokenizers_must_agree_token_by_token(place, tmp_path):
    """ms-swift copies the other model's logits; Liger fills the student up with zeros."""
    (student, teacher), *_ = place
    other = tmp_path / "other"
    other.mkdir()
    for file in teacher.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    changed = (other / "tokenizer.json").read_text("utf-8")
    swapped = changed.replace('"a":', '"spare":', 1).replace('"b":', '"a":', 1).replace('"spare":', '"b":', 1)
    (other / "tokenizer.json").write_text(swapped, "utf-8")
    with pytest.raises(BadInput, match=r"2 tokens differ .* 'a' has id \d+ for the student and \d+ for the teacher"):
        agree(locate(str(student)), locate(str(other)))
    agree(locate(str(student)), locate(str(teacher)))  # widths of 260 and 264 do not matter


@pytest.mark.parametrize("label", [m for m in distinct() if method(m).needs.teacher == "signal"])
def test_6_sampling_temperatures_touch_no_loss_of_a_fixed_text(place, label, monkeypatch):
    """The texts of one run, given to a run that would sample at another temperature."""
    (texts,), run = collected(make(label, *place, steps=1))
    monkeypatch.setattr(Rollouts, "collect", lambda self, step, sources, cost: texts)
    job = make(label, *place, steps=1)
    usual = job.recipe.rollout
    other = type(usual)(temperature=0.3, top_p=0.65, max_new_tokens=8)
    assert (usual.temperature, usual.top_p) == (1.0, 1.0)
    job.recipe = type(job.recipe)(**{**vars(job.recipe), "rollout": other})
    assert train(job, quiet).curve[0]["loss"] == run.curve[0]["loss"]


def test_7_prompt_padding_and_last_position_have_no_loss(place):
    """One label a response token, shifted once: the token itself, predicted one column before."""
    seen, _ = collected(make("distillm2", *place, steps=1))
    pad = load_tokenizer(make("kd", *place).student).pad_token_id
    batch = collate(seen[0], pad, None, "cpu")
    assert len(batch.labels) == sum(len(s.response) for s in seen[0])
    for i, s in enumerate(seen[0]):
        mine = batch.row == i
        assert tuple(batch.labels[mine].tolist()) == s.response
        assert batch.column[mine].tolist() == list(range(len(s.prompt) - 1, len(s.prompt) + len(s.response) - 1))
        assert tuple(batch.ids[i, batch.column[mine] + 1].tolist()) == s.response
    assert sum(len(part) for part in micro_batches(seen[0], 4)) == len(seen[0]) == 2 * BATCH


def test_7_minillm_single_step_term_has_response_tokens_only(place):
    """TRL's mask `input_ids != -100` was always true. Longer neighbours would add their padding."""
    losses_ = [result(make("minillm@trl", *place, steps=1, micro_batch=n)).losses[0] for n in (1, 64)]
    assert losses_[0] == pytest.approx(losses_[1], rel=1e-5)


def test_7_the_tokenizers_padding_side_does_not_matter(place, tmp_path):
    models, prompts, _ = place
    left = tmp_path / "left"
    left.mkdir()
    for file in models[0].iterdir():
        (left / file.name).write_bytes(file.read_bytes())
    facts = json.loads((left / "tokenizer_config.json").read_text("utf-8")) | {"padding_side": "left"}
    (left / "tokenizer_config.json").write_text(json.dumps(facts), "utf-8")
    for label in ("gkd", "minillm"):
        assert load_tokenizer(locate(str(left))).padding_side == "left"
        a, b = (result(make(label, pair_, prompts, tmp_path)) for pair_ in (models, (left, models[1])))
        assert torch.equal(a.weights, b.weights) and a.curve == b.curve


def test_8_teacher_and_student_read_the_same_prompt_ids(place):
    """Rendered once, with the student's template, for both models: joint and scored text alike."""
    seen = []
    import harness.training.signals as signals

    read = signals.LiveTeacher.read
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signals.LiveTeacher, "read", lambda self, b: seen.append(b) or read(self, b))
        texts, _ = collected(make("skd", *place, steps=1))
    rows = [row[mask == 1].tolist() for batch in seen for row, mask in zip(batch.ids, batch.mask, strict=True)]
    assert sorted(rows) == sorted([*s.prompt, *s.response] for s in texts[0])


def test_12_the_on_policy_share_is_lambda_over_all_steps(place):
    """Drawn once a step, equal on all processes; TRL draws per micro-batch and process."""
    jobs = [make("gkd", *place, seed=seed) for seed in (0, 1)]
    rollouts = [Rollouts(job, None, process=p, processes=2) for job in jobs for p in (0, 1)]
    draws = [[r.draw(step) for step in range(2000)] for r in rollouts]
    assert draws[0] == draws[1] != draws[2]
    for share in (0.0, 0.25, 0.5, 1.0):
        of = method("gkd", {"on_policy": share})
        own = sum(of.sources(Step(i, 2000, d)) == (Source.STUDENT,) for i, d in enumerate(draws[0])) / 2000
        assert own == pytest.approx(share, abs=0.03) and (share not in (0.0, 1.0) or own == share)


# Language-model losses, and objectives that are published with a pull where both models agree: a preference, a hard
# target, a teacher that is renormalised on part of the vocabulary, a goal beyond the teacher.
PULL = ("sft", "seqkd", "dpkd", "eopd", "imitkd", "gopd")
# Settings that weigh parts which pull where both models agree, though they read no token of the text: the student's own
# entropy, and distances of ranked probabilities that are least elsewhere.
TOKENLESS = ("entropy", "logarithmic", "sinkhorn")


def at_agreement(label, settings, labels=None):
    """[10, V] the gradient on own samples where teacher, sampler and reference are the student, and no text is better
    than another. ``labels`` [10] replace the tokens of the texts.
    """
    case = Case(label)
    config = replace(case.method.config, **settings)
    case.method = type(case.method)(config)
    case.teacher = case.student.clone()
    case.labels = case.labels if labels is None else labels
    case.old = torch.full((10,), torch.nan, dtype=torch.float64)
    case.reference = case.student.log_softmax(-1).gather(-1, case.labels[:, None])[:, 0]
    case.source = (Source.MIXED if label.startswith("minillm") else Source.STUDENT,) * 2
    z = case.student.clone().requires_grad_()
    tokens = case.tokens(z)
    if case.method.needs.rewards and case.method.needs.step_features:
        whole = WholeStep(
            case.sequence, case.source, (0, 0), STEP, torch.ones(2, dtype=torch.float64), 12, (True, False)
        )
        tokens.step_features = case.method.step_features(torch.zeros(10, 0), whole)
    (grad,) = torch.autograd.grad(case.method.objective(tokens).sum(), z)
    return grad


@pytest.mark.parametrize(
    "label", [m for m in distinct() if m.partition("@")[0] not in PULL or m in ("eopd@full", "imitkd")]
)
def test_13_own_samples_carry_no_language_model_loss(label):
    """Where teacher and student agree nothing pulls: a cross-entropy on own tokens would."""
    of, off = method(label), {}
    # A cross-entropy beside the distance is for text that somebody else wrote; the distance alone is looked at.
    if getattr(of.config, "hard", 0):
        assert not texts_of(of, 100) & {Source.STUDENT, Source.MIXED, Source.REPLAY}
        assert at_agreement(label, {}).abs().max() > 0.1  # what this test would see on own samples
        off["hard"] = 0.0
    parts = {name: 0.0 for name in TOKENLESS if getattr(of.config, name, 0)}
    if parts:
        others = (Case(label).labels + 1) % VOCAB
        torch.testing.assert_close(at_agreement(label, off), at_agreement(label, off, others), rtol=0, atol=1e-12)
    assert at_agreement(label, off | parts).abs().max() < 1e-6


def test_17_no_objective_multiplies_a_whole_divergence_onto_an_action():
    """The expected policy gradient of an action-independent advantage is 0 (radixark/miles 2362), enumerated.

    That of ours, weighted by q over all actions, is the gradient of the reverse KL.
    """
    generator = torch.Generator().manual_seed(0)
    z, t = torch.randn(2, 1, 5, generator=generator, dtype=torch.float64)
    z.requires_grad_()
    log_q, log_p = z.log_softmax(-1)[0], t.log_softmax(-1)[0]
    kl = losses.reverse_kl(z, t)[0].detach()
    same = sum(log_q[a].exp().detach() * kl * torch.autograd.grad(log_q[a], z, retain_graph=True)[0] for a in range(5))
    assert same.abs().max() < 1e-12
    ours = torch.zeros_like(z)
    for action in range(5):
        case = Case("opd", hard=False)
        case.student, case.teacher = z.detach().expand(10, 5).clone(), t.expand(10, 5)
        case.labels, case.old = torch.full((10,), action), torch.full((10,), torch.nan, dtype=torch.float64)
        own = case.student.requires_grad_()
        (grad,) = torch.autograd.grad(case.method.objective(case.tokens(own))[0], own)
        ours += log_q[action].exp().detach() * grad[0]
    (expected,) = torch.autograd.grad(losses.reverse_kl(z, t).sum(), z)
    torch.testing.assert_close(ours, expected)
    assert (log_p - log_q).abs().max() > 0.1


def test_19_as_many_texts_as_prompts(place):
    """distillm-2's pairing dropped rows in a bare except: here every prompt of the step has one text a source."""
    for label, sides in (("distillm2", 2), ("gkd@distillm2", 2), ("minillm", 2), ("skd", 1)):
        seen, _ = collected(make(label, *place))
        assert [len(found) for found in seen] == [sides * BATCH] * 3
        for found in seen:
            assert sorted(s.place for s in found) == list(range(sides * BATCH))


def test_what_is_proved_elsewhere_exists():
    for trap, where in ELSEWHERE.items():
        file, _, name = where.partition("::")
        assert re.search(rf"^def {name}\w*\(", (Path(__file__).parent / file).read_text("utf-8"), re.M), trap
    numbers = {int(trap.split()[0]) for trap in ELSEWHERE} | {
        int(n) for n in re.findall(r"^def test_(\d+)_", Path(__file__).read_text("utf-8"), re.M)
    }
    assert numbers == set(range(1, 21))
