"""The divergences of harness.losses equal their published formulas in value, gradient, direction and limits."""

import math

import numpy as np
import pytest
import torch
from loss_formulas import (
    CASES,
    DIVERGENCES,
    REFERENCE,
    VOCAB,
    akl_weight,
    gradient,
    kl,
    label,
    loss,
    over,
    pair,
    softmax,
)

from harness import losses
from harness.errors import BadInput

torch.set_num_threads(1)


@over(CASES)
@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.5])
def test_value_is_the_published_formula(case, temperature):
    for seed in range(2):
        student, teacher = pair(seed, tokens=6, vocab=11)
        p, q = softmax(teacher.numpy() / temperature), softmax(student.numpy() / temperature)
        expected = REFERENCE[case[0]](p, q, **case[1])
        ours = loss(case, student, teacher, temperature=temperature)
        assert ours.shape == (6,)
        np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-9)
        single = loss(case, student.float(), teacher.float(), temperature=temperature)
        assert single.dtype == torch.float32
        np.testing.assert_allclose(single, expected, rtol=2e-4, atol=1e-5)


@over([case for case in CASES if case[0] != "adaptive_kl"])
def test_gradient_equals_finite_differences(case):
    for seed, temperature in enumerate((1.0, 0.5)):
        student, teacher = pair(seed, tokens=2, vocab=5)
        assert torch.autograd.gradcheck(
            lambda z, t, T=temperature: loss(case, z, t, temperature=T, vocab_size=4),
            (student.requires_grad_(), teacher.requires_grad_()),
            atol=1e-7,
        )


def finite_differences(value, z, step=1e-6):
    grad = np.zeros_like(z)
    for index in np.ndindex(z.shape):
        moved = np.zeros_like(z)
        moved[index] = step
        grad[index] = (value(z + moved) - value(z - moved))[index[0]] / (2 * step)
    return grad


@pytest.mark.parametrize("crossing", [True, False])
def test_gradient_of_adaptive_kl_freezes_its_weights(crossing):
    student, teacher = pair(3)
    p, w = (
        softmax(teacher.numpy()),
        akl_weight(softmax(teacher.numpy()), softmax(student.numpy()), 0.5, crossing),
    )

    def frozen(z):
        return w * kl(p, softmax(z)) + (1 - w) * kl(softmax(z), p)

    ours = gradient(("adaptive_kl", {"mu": 0.5, "crossing": crossing}), student, teacher)
    np.testing.assert_allclose(ours, finite_differences(frozen, student.numpy()), atol=1e-7)


def test_mixture_of_skew_reverse_kl_is_detached_only_on_request():
    """distillm-2's released SRKL stops the gradient of its mixture without saying so; its SKL does not."""
    student, teacher = pair(4)
    p, q = softmax(teacher.numpy()), softmax(student.numpy())
    mixture = 0.9 * p + 0.1 * q
    published = gradient(("skew_reverse_kl", {"alpha": 0.1}), student, teacher)
    released = gradient(("skew_reverse_kl", {"alpha": 0.1, "detach_mixture": True}), student, teacher)
    frozen = finite_differences(lambda z: kl(softmax(z), mixture), student.numpy())
    np.testing.assert_allclose(released, frozen, atol=1e-7)
    assert (published - released).abs().max() > 1e-3
    torch.testing.assert_close(
        losses.skew_reverse_kl(student, teacher, alpha=0.1, detach_mixture=True),
        losses.skew_reverse_kl(student, teacher, alpha=0.1),
    )


IDENTITIES = [
    (("jsd", {"beta": 0.0}), ("forward_kl", {})),
    (("jsd", {"beta": 1.0}), ("reverse_kl", {})),
    (("skew_kl", {"alpha": 0.0}), ("forward_kl", {})),
    (("skew_kl", {"alpha": 1e-9}), ("forward_kl", {})),
    (("skew_reverse_kl", {"alpha": 0.0}), ("reverse_kl", {})),
    (("alpha_beta", {"alpha": 1.0, "beta": 0.0}), ("forward_kl", {})),
    (("alpha_beta", {"alpha": 0.0, "beta": 1.0}), ("reverse_kl", {})),
    (("alpha_beta", {"alpha": 1.0, "beta": 1e-9}), ("forward_kl", {})),
    (("adaptive_kl", {"mu": 1.0}), ("forward_kl", {})),
]


@pytest.mark.parametrize(("one", "other"), IDENTITIES, ids=lambda case: label(case))
def test_identities_hold_in_value_and_gradient(one, other):
    student, teacher = pair(5, vocab=50)
    torch.testing.assert_close(loss(one, student, teacher), loss(other, student, teacher), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(gradient(one, student, teacher), gradient(other, student, teacher), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("loss", [losses.skew_kl, losses.skew_reverse_kl])
@pytest.mark.parametrize("outside", [-0.2, 1.2])
def test_a_weight_outside_its_range_is_refused_and_unrefused_makes_the_loss_nan(loss, outside, monkeypatch):
    """A GPU is not asked for the values of a tensor: there the loop finds the NaN."""
    q, p, alpha = torch.zeros(3, 5), torch.randn(3, 5), torch.tensor([0.5, outside, 0.5])
    with pytest.raises(BadInput, match=r"alpha=.* is outside \[0, 1\]"):
        loss(q, p, alpha=alpha)
    monkeypatch.setattr(losses, "_in_unit_interval", lambda *_: None)
    assert loss(q, p, alpha=alpha).isnan().tolist() == [False, True, False]


@pytest.mark.parametrize("name", ["skew_kl", "skew_reverse_kl"])
def test_skew_of_one_is_zero_for_any_student(name):
    student, teacher = pair(6, dtype=torch.float32, scale=5)
    case = (name, {"alpha": 1.0})
    torch.testing.assert_close(loss(case, student, teacher), torch.zeros(4), rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient(case, student, teacher), torch.zeros(4, 7), rtol=0, atol=1e-6)


@over(DIVERGENCES)
def test_equal_distributions_have_no_divergence_and_no_gradient(case):
    """The authors' adaptive KL divides 0 by 0 here."""
    for vocab in (7, VOCAB):
        student, _ = pair(7, tokens=1, vocab=vocab, scale=0.5, dtype=torch.float32)
        assert loss(case, student, student).abs().max() < 1e-7
        # Rounding of one part in 1e7 of the largest term: p^(alpha + beta) where that exponent is negative.
        largest = student.softmax(-1).min() ** min(0, case[1].get("alpha", 0) + case[1].get("beta", 0))
        assert gradient(case, student, student).abs().max() < 5e-7 * largest


@over([case for case in DIVERGENCES if case[0] != "alpha_beta" or sum(case[1].values()) > 0])
def test_logits_of_another_offset_are_the_same_distribution(case):
    """Not so for alpha + beta <= 0, whose sum over unlikely tokens magnifies the rounding of the logits."""
    for vocab in (7, VOCAB):
        student, _ = pair(7, tokens=1, vocab=vocab, scale=0.5, dtype=torch.float32)
        value = loss(case, student, student + 3)
        assert value.abs().max() < 1e-6 and value.min() > -1e-7
        if case[0] != "total_variation":  # it has a kink here
            assert gradient(case, student, student + 3).abs().max() < 1e-6


@over(DIVERGENCES)
def test_never_negative(case):
    for seed, scale in enumerate((1e-4, 1e-2, 1.0, 5.0, 30.0)):
        student, noise = pair(seed, tokens=64, vocab=40, scale=scale, dtype=torch.float32)
        base = pair(seed + 50, tokens=64, vocab=40, scale=3, dtype=torch.float32)[0]
        assert loss(case, base + student, base + noise).min() > -1e-6


@pytest.mark.parametrize("name", ["forward_kl", "reverse_kl"])
def test_near_equal_distributions_of_a_large_vocabulary(name):
    """sum p log(p/q) alone is off by 3e-6 nats here, more than the value itself."""
    student, noise = pair(8, tokens=8, vocab=VOCAB, scale=1.0, dtype=torch.float32)
    teacher = student + 5e-4 * noise + 3
    exact = loss((name, {}), student.double(), teacher.double()).float()
    assert 1e-8 < exact.max() < 1e-6
    torch.testing.assert_close(loss((name, {}), student, teacher), exact, rtol=0.01, atol=0)


TWO_POINTS = torch.tensor([[0.9, 0.1]]).log(), torch.tensor([[0.5, 0.5]]).log()  # student, teacher


def test_direction_on_an_asymmetric_two_point_distribution():
    forward = 0.5 * math.log(0.5 / 0.9) + 0.5 * math.log(0.5 / 0.1)  # 0.5108, the teacher's expectation
    reverse = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.5)  # 0.3681, the student's expectation
    skewed = 0.5 * math.log(0.5 / 0.82) + 0.5 * math.log(0.5 / 0.18)  # mixture 0.2 p + 0.8 q
    skewed_reverse = 0.9 * math.log(0.9 / 0.58) + 0.1 * math.log(0.1 / 0.42)  # mixture 0.8 p + 0.2 q
    mixed = 0.3 * (0.5 * math.log(0.5 / 0.78) + 0.5 * math.log(0.5 / 0.22)) + 0.7 * (
        0.9 * math.log(0.9 / 0.78) + 0.1 * math.log(0.1 / 0.22)
    )
    assert losses.forward_kl(*TWO_POINTS).item() == pytest.approx(forward, rel=1e-5)
    assert losses.reverse_kl(*TWO_POINTS).item() == pytest.approx(reverse, rel=1e-5)
    assert losses.skew_kl(*TWO_POINTS, alpha=0.2).item() == pytest.approx(skewed, rel=1e-5)
    assert losses.skew_reverse_kl(*TWO_POINTS, alpha=0.2).item() == pytest.approx(skewed_reverse, rel=1e-5)
    assert losses.jsd(*TWO_POINTS, beta=0.3).item() == pytest.approx(mixed, rel=1e-5)
    assert losses.total_variation(*TWO_POINTS).item() == pytest.approx(0.4, rel=1e-5)
    assert losses.cross_entropy(*TWO_POINTS).item() == pytest.approx(forward + math.log(2), rel=1e-5)


def test_distillm_js_lam_is_one_minus_beta():
    """distillm's js_distance(lam=0.9): M = 0.1 p + 0.9 q, 0.9 KL(q || M) + 0.1 KL(p || M)."""
    student, teacher = pair(9)
    p, q, lam = softmax(teacher.numpy()), softmax(student.numpy()), 0.9
    m = (1 - lam) * p + lam * q
    released = lam * kl(q, m) + (1 - lam) * kl(p, m)
    np.testing.assert_allclose(losses.jsd(student, teacher, beta=1 - lam), released, rtol=1e-9)


def test_small_beta_weakens_the_gradient_while_zero_restores_it():
    student, teacher = pair(10)
    full = gradient(("jsd", {"beta": 0.0}), student, teacher)
    weak = gradient(("jsd", {"beta": 1e-6}), student, teacher)
    torch.testing.assert_close(weak, 1e-6 * full, rtol=1e-3, atol=1e-10)


def test_forward_kl_is_a_kl_and_not_a_cross_entropy():
    """distillm, TAID, MiniLLM and torchtune log the cross-entropy: the same gradient, off by H(p)."""
    student, teacher = pair(11)
    kl_value, entropy = losses.forward_kl(student, teacher), losses.cross_entropy(teacher, teacher)
    torch.testing.assert_close(losses.cross_entropy(student, teacher), kl_value + entropy)
    torch.testing.assert_close(
        gradient(("cross_entropy", {}), student, teacher), gradient(("forward_kl", {}), student, teacher)
    )


@pytest.mark.parametrize("alpha", [0.0, -0.6, 0.4])
@pytest.mark.parametrize("beta", [0.0, -0.4, 0.6])
def test_alpha_beta_is_continuous_at_its_limits(alpha, beta):
    """ABKD's released code divides these limits by alpha or beta, not the square: a jump, even below 0."""
    student, teacher = pair(12)
    at = losses.alpha_beta(student, teacher, alpha=alpha, beta=beta)
    for da, db in ((1e-6, 0), (0, 1e-6), (-1e-6, 1e-6), (1e-7, 1e-6), (1e-16, 0)):
        near = losses.alpha_beta(student, teacher, alpha=alpha + da, beta=beta + db)
        torch.testing.assert_close(near, at, rtol=1e-4, atol=1e-8)


@over([case for case in CASES if case[0] in ("skew_kl", "skew_reverse_kl")])
def test_alpha_may_differ_from_token_to_token(case):
    """The adaptive skew of DistiLLM-2 is one number per sequence."""
    student, teacher = pair(18, tokens=3)
    alphas = torch.tensor([0.05, case[1]["alpha"], 0.9], dtype=torch.float64)
    each = loss((case[0], {"alpha": alphas}), student, teacher)
    alone = [loss((case[0], {"alpha": a.item()}), student[[i]], teacher[[i]]) for i, a in enumerate(alphas)]
    torch.testing.assert_close(each, torch.cat(alone))


def test_temperature_divides_both_logits_and_nothing_multiplies():
    student, teacher = pair(19)
    for case in CASES:
        torch.testing.assert_close(loss(case, student, teacher, temperature=3.0), loss(case, student / 3, teacher / 3))


def test_cross_entropy_of_token_ids():
    student, _ = pair(21)
    ids = torch.tensor([0, 6, -100, 3])
    value = losses.cross_entropy(student, ids, temperature=0.7)
    expected = -np.log(softmax(student.numpy() / 0.7)[[0, 1, 3], [0, 6, 3]])
    np.testing.assert_allclose(value[[0, 1, 3]], expected, rtol=1e-12)
    assert value[2] == 0
    assert torch.autograd.gradcheck(lambda z: losses.cross_entropy(z, ids), student.requires_grad_())
