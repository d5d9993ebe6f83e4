"""What must not change a divergence: masks, padding, order and width of the vocabulary, precision, bad input."""

import math

import pytest
import torch
from loss_formulas import CASES, F_DIVERGENCES, gradient, loss, over, pair

from harness import losses
from harness.errors import BadInput

torch.set_num_threads(1)


@over(CASES)
@pytest.mark.parametrize("ties", [False, True])
def test_permuting_the_vocabulary_changes_nothing(case, ties):
    """TAID's copy of the adaptive KL fails: it masks gaps in vocabulary order by a mask in sorted order."""
    student, teacher = pair(13, tokens=32, vocab=30)
    teacher = teacher.round() if ties else teacher
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loss(case, student[:, order], teacher[:, order]), loss(case, student, teacher))


@over(CASES)
@pytest.mark.parametrize("padding", [0.0, 50.0, -1e9, -math.inf, math.nan])
def test_padded_columns_never_matter(case, padding):
    """Checkpoints of one tokenizer are padded to different widths (Qwen2.5: 151,936 and 152,064)."""
    student, teacher = pair(14, dtype=torch.float32)
    wide = torch.cat([student, torch.full((4, 2), padding)], -1)
    wider = torch.cat([teacher, torch.full((4, 5), padding)], -1)
    torch.testing.assert_close(loss(case, wide, wider, vocab_size=7), loss(case, student, teacher), rtol=0, atol=0)
    grad = gradient(case, wide, wider, vocab_size=7)
    torch.testing.assert_close(grad[:, :7], gradient(case, student, teacher), rtol=0, atol=0)
    assert not grad[:, 7:].any()


@over(CASES)
@pytest.mark.parametrize("mask", [-1e9, -1e30, torch.finfo(torch.float32).min, -math.inf])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_entries_masked_on_both_sides_do_not_exist(case, mask, temperature):
    student, teacher = pair(15, dtype=torch.float32)
    masked = [torch.cat([torch.full((4, 3), mask), logits], -1) for logits in (student, teacher)]
    for of, support in ((loss, slice(None)), (gradient, (slice(None), slice(3, None)))):
        ours = of(case, *masked, temperature=temperature)
        assert not ours.isnan().any()
        expected = of(case, student, teacher, temperature=temperature)
        torch.testing.assert_close(ours[support], expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())
    assert not gradient(case, *masked, temperature=temperature)[:, :3].any()


def test_a_mask_on_one_side_gives_the_true_value():
    both, one = torch.tensor([[0.0, 0.0]]), torch.tensor([[0.0, -math.inf]])
    assert losses.forward_kl(both, one).item() == pytest.approx(math.log(2))  # p has no mass there
    assert losses.forward_kl(one, both).item() == math.inf  # q has none where p has
    assert losses.reverse_kl(both, one).item() == math.inf
    assert losses.skew_kl(one, both, alpha=0.0).item() == math.inf
    assert losses.skew_kl(one, both, alpha=0.5).item() == pytest.approx(
        0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    )
    assert losses.total_variation(one, both).item() == pytest.approx(0.5)
    for student, teacher in ((both, one), (one, both)):
        for case in (
            ("jsd", {"beta": 0.3}),
            ("skew_kl", {"alpha": 0.3}),
            ("skew_reverse_kl", {"alpha": 0.3}),
            ("alpha_beta", {"alpha": 0.2, "beta": 0.7}),
            ("alpha_beta", {"alpha": -0.5, "beta": 1.5}),
        ):
            assert loss(case, student, teacher).isfinite().all()
            assert gradient(case, student, teacher).isfinite().all()


@over(CASES)
def test_finite_for_near_one_hot_and_huge_logits(case):
    """Mixtures of probabilities and powers of small ones under- or overflow unless they stay in log space."""
    for dtype in (torch.bfloat16, torch.float32):
        for size in (30.0, 100.0, 1e4, 1e30):
            student, teacher = torch.zeros(3, 9, dtype=dtype), torch.zeros(3, 9, dtype=dtype)
            student[:, 2] = size
            teacher[0, 2] = teacher[1, 5] = size  # the same token, another one, and a flat teacher
            assert loss(case, student, teacher).isfinite().all()
            assert loss(case, teacher, student).isfinite().all()
            assert gradient(case, student, teacher).isfinite().all()


@over(CASES)
def test_bf16_inputs_are_computed_in_fp32(case):
    """Liger's soft part runs in the dtype of its inputs."""
    student, teacher = pair(16, tokens=16, vocab=500, dtype=torch.bfloat16)
    value = loss(case, student, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(case, student.float(), teacher.float()), rtol=1e-6, atol=1e-6)
    assert gradient(case, student, teacher).dtype == torch.bfloat16


@over(F_DIVERGENCES)
def test_a_bucket_for_the_tail_gives_a_lower_bound(case):
    student, teacher = pair(17, tokens=64, vocab=40)
    q, p = student.softmax(-1), teacher.softmax(-1)
    full = loss(case, student, teacher)
    for k in (1, 5, 39, 40):
        ids = teacher.topk(k).indices
        coarse = [
            torch.cat([d.gather(-1, ids), (1 - d.gather(-1, ids).sum(-1, True)).clamp(min=0)], -1) for d in (q, p)
        ]
        if k == 40:  # an empty bucket: -inf on both sides
            coarse = [torch.cat([d[:, :40], torch.zeros(64, 1, dtype=d.dtype)], -1) for d in coarse]
        value = loss(case, coarse[0].log(), coarse[1].log())
        assert (value <= full + 1e-9).all() and (value > -1e-9).all()
        if k >= 39:
            torch.testing.assert_close(value, full, rtol=1e-6, atol=1e-9)


def test_a_head_of_all_mass_is_not_cut_short_by_rounding():
    """In fp32 the first token of this teacher already sums to 1; the student's mass is on the others."""
    student, teacher = torch.zeros(1, 9), torch.tensor([[30.0] + [0.0] * 8])
    torch.testing.assert_close(losses.adaptive_kl(student, teacher, mu=1.0), losses.forward_kl(student, teacher))


def test_a_flat_teacher_takes_the_long_way_to_its_head(monkeypatch):
    student, teacher = pair(20, tokens=16, vocab=300, scale=1.0)
    short = losses.adaptive_kl(student, teacher, mu=0.6)
    monkeypatch.setattr(losses, "HEAD_SEARCH", 4)
    torch.testing.assert_close(losses.adaptive_kl(student, teacher, mu=0.6), short, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("call", "names"),
    [
        (lambda s, t: losses.jsd(s, t, beta=1.5), ["beta=1.5", "[0, 1]", "2306.13649"]),
        (lambda s, t: losses.jsd(s, t, beta=math.nan), ["beta=nan", "[0, 1]"]),
        (lambda s, t: losses.skew_kl(s, t, alpha=-0.1), ["alpha=-0.1", "[0, 1]", "2402.03898"]),
        (lambda s, t: losses.skew_reverse_kl(s, t, alpha=2), ["alpha=2", "[0, 1]", "2402.03898"]),
        (lambda s, t: losses.skew_kl(s, t, alpha=torch.tensor([0.1, 0.2, 7.0, 0.1])), ["alpha=7", "[0, 1]"]),
        (lambda s, t: losses.adaptive_kl(s, t, mu=-1), ["mu=-1", "[0, 1]", "2404.02657"]),
        (
            lambda s, t: losses.alpha_beta(s, t, alpha=math.inf, beta=0),
            ["alpha=inf", "(-inf, inf)", "2505.04560"],
        ),
        (lambda s, t: losses.forward_kl(s, t, temperature=0), ["temperature=0", "(0, inf)"]),
        (lambda s, t: losses.forward_kl(s, t[:, :5]), ["[7, 5] logits", "vocab_size"]),
        (lambda s, t: losses.forward_kl(s, t[:3]), ["[4, 7]", "[3, 7]"]),
        (lambda s, t: losses.forward_kl(s, t, vocab_size=8), ["vocab_size=8", "[1, 7]"]),
    ],
)
def test_bad_input_is_refused_in_one_line(call, names):
    with pytest.raises(BadInput) as error:
        call(*pair(22))
    assert all(name in str(error.value) for name in names)
    assert "\n" not in str(error.value)
