"""The published formulas of the divergences as an independent reference, and the cases that every test walks."""

import numpy as np
import pytest
import torch

from harness import losses

VOCAB = 151_936  # of the Qwen2.5 checkpoints


# The published formulas, in float64 numpy, on probabilities of one token. Nothing of harness.losses is used.


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(a, b):
    return (a * np.log(a / b)).sum(-1)


def ref_jsd(p, q, beta):
    m = beta * p + (1 - beta) * q
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


def akl_weight(p, q, mu, crossing=True):
    """Token by token: the likeliest join the head until it holds mu."""
    weights = []
    for p_row, q_row in zip(p, q, strict=True):
        head, mass = [], 0.0
        for v in np.argsort(-p_row):
            if head and (mass >= mu or (not crossing and mass + p_row[v] > mu)):
                break
            head.append(v)
            mass += p_row[v]
        gap = np.abs(p_row - q_row)
        weights.append(gap[head].sum() / gap.sum())
    return np.array(weights)


def ref_akl(p, q, mu, crossing=True):
    w = akl_weight(p, q, mu, crossing)
    return w * kl(p, q) + (1 - w) * kl(q, p)


def ref_alpha_beta(p, q, alpha, beta):
    """Definition 1 of Cichocki, Cruces and Amari (2011), with its four limits."""
    if alpha and beta and alpha + beta:
        s = alpha + beta
        inner = p**alpha * q**beta - alpha / s * p**s - beta / s * q**s
        return -inner.sum(-1) / (alpha * beta)
    if alpha == 0 and beta == 0:
        return 0.5 * (np.log(p / q) ** 2).sum(-1)
    if beta == 0:
        return (p**alpha * np.log(p**alpha / q**alpha) - p**alpha + q**alpha).sum(-1) / alpha**2
    if alpha == 0:
        return (q**beta * np.log(q**beta / p**beta) - q**beta + p**beta).sum(-1) / beta**2
    return (np.log(q**alpha / p**alpha) + (q**alpha / p**alpha) ** -1 - 1).sum(-1) / alpha**2


REFERENCE = {
    "forward_kl": kl,
    "reverse_kl": lambda p, q: kl(q, p),
    "jsd": ref_jsd,
    "skew_kl": lambda p, q, alpha: kl(p, alpha * p + (1 - alpha) * q),
    "skew_reverse_kl": lambda p, q, alpha: kl(q, (1 - alpha) * p + alpha * q),
    "total_variation": lambda p, q: 0.5 * np.abs(p - q).sum(-1),
    "adaptive_kl": ref_akl,
    "alpha_beta": ref_alpha_beta,
    "cross_entropy": lambda p, q: -(p * np.log(q)).sum(-1),
}

CASES = [
    ("forward_kl", {}),
    ("reverse_kl", {}),
    *(("jsd", {"beta": beta}) for beta in (0.1, 0.5, 0.93)),
    *(("skew_kl", {"alpha": alpha}) for alpha in (0.0, 0.1, 0.6, 1.0)),
    *(("skew_reverse_kl", {"alpha": alpha}) for alpha in (0.0, 0.1, 0.6, 1.0)),
    ("total_variation", {}),
    *(("adaptive_kl", {"mu": mu}) for mu in (0.0, 0.3, 0.5, 0.9, 1.0)),
    *(("adaptive_kl", {"mu": mu, "crossing": False}) for mu in (0.3, 0.7)),
    *(
        ("alpha_beta", {"alpha": alpha, "beta": beta})
        for alpha, beta in [
            *((0.2, 0.7), (0.1, 0.8), (0.5, 0.5), (2.0, 0.5)),
            *((1, 0), (0, 1), (0, 0), (0.7, 0), (0, -0.4), (-0.6, 0)),  # limits in alpha and beta
            *((0.5, -0.5), (-0.3, 0.3)),  # alpha + beta = 0
            *((1.4, -0.3), (-0.2, 1.1), (-0.5, -0.7), (0.4, -1.5), (-2.0, 0.9)),  # negative exponents
        ]
    ),
    ("cross_entropy", {}),
]
DIVERGENCES = [case for case in CASES if case[0] != "cross_entropy"]
# Those that obey the data processing inequality.
F_DIVERGENCES = [
    case for case in DIVERGENCES if case[0] != "adaptive_kl" and (case[0] != "alpha_beta" or sum(case[1].values()) == 1)
]


def label(case):
    return f"{case[0]}({', '.join(f'{key}={value:.3g}' for key, value in case[1].items())})"


def over(cases):
    return pytest.mark.parametrize("case", cases, ids=label)


def loss(case, student, teacher, **settings):
    return getattr(losses, case[0])(student, teacher, **case[1], **settings)


def pair(seed, tokens=4, vocab=7, scale=1.5, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(2, tokens, vocab, generator=generator, dtype=torch.float64)).to(dtype)


def gradient(case, student, teacher, **settings):
    student = student.detach().clone().requires_grad_()
    (grad,) = torch.autograd.grad(loss(case, student, teacher, **settings).sum(), student)
    return grad
