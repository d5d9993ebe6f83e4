"""The divergences between student and teacher, each defined once, exactly, with its convention.

Pure functions of logits: ``f(student_logits [N, V], teacher_logits [N, V], *, ..., temperature=1.0,
vocab_size=None) -> [N]``, one value per token, in nats, never reduced. Throughout, p is the teacher's and q
the student's distribution.

precision    fp32 inside whatever the inputs are; fp64 where both are, so that finite differences work.
temperature  divides both logits. There is no factor T^2, as in the released code of the methods named here,
             so that a larger T also means a smaller step (about 1/T^2).
vocab_size   length of the shared tokenizer. Both sides are cut to it before the softmax, so that what the
             padded columns of a checkpoint hold never matters. Without it the widths must agree.
masks        a logit of -inf, or one so low that its probability is 0 in fp32, is outside the support:
             masked on both sides it adds nothing to value and gradient (0 log 0 = 0). A KL is +inf where a
             logit of -inf meets mass of the other side, because that is its value; `alpha_beta` says its own.
support      any: log-probabilities of K tokens and of a bucket for the rest are logits too. By the data
             processing inequality they give a lower bound of the full value (not so for `adaptive_kl`, nor
             for `alpha_beta` unless alpha + beta = 1). A temperature belongs before the bucket is formed.
gradient     exact and through both arguments: nothing is detached unless the function says so.

Raises BadInput (a ValueError) for a parameter out of range and for shapes that do not fit.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from harness.errors import BadInput

if TYPE_CHECKING:
    from torch import Tensor

HEAD_SEARCH = (
    1024  # adaptive_kl searches its head among this many likeliest tokens before it sorts the whole vocabulary
)


def forward_kl(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0, vocab_size: int | None = None
) -> Tensor:
    """[N] KL(p || q) = sum p log(p / q), the classic distillation loss (Hinton et al., arXiv 1503.02531).

    A true KL. distillm, TAID, MiniLLM and torchtune report -sum p log q under this name: the same gradient,
    but a value that is larger by the teacher's entropy; `cross_entropy` with teacher logits gives theirs.
    """
    log_q, log_p = _log_probs(temperature, vocab_size, student_logits, teacher_logits)
    return kl_of(log_p, log_q)


def reverse_kl(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0, vocab_size: int | None = None
) -> Tensor:
    """[N] KL(q || p) = sum q log(q / p); on student text, MiniLLM's single-step term (arXiv 2306.08543)."""
    log_q, log_p = _log_probs(temperature, vocab_size, student_logits, teacher_logits)
    return kl_of(log_q, log_p)


def jsd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    beta: float,
    temperature: float = 1.0,
    vocab_size: int | None = None,
) -> Tensor:
    """[N] beta KL(p || M) + (1 - beta) KL(q || M), with M = beta p + (1 - beta) q (GKD, arXiv 2306.13649).

    ``beta`` in [0, 1] is the teacher's weight in M. The same number elsewhere: beta of TRL, ms-swift and
    Liger; 1 - jsd_beta of KDFlow; 1 - lam of distillm (its 0.9 is beta = 0.1); js_beta of TAID; alpha of
    distillm-2's gkd (0.9). speculative_kd's "JSD" swaps the arguments of both KLs and is none of these.

    The ends are special, as in GKD: beta = 0 is `forward_kl`, beta = 1 is `reverse_kl`. They are not the limits:
    towards 0 value and gradient tend to beta times those of the forward KL and vanish, and likewise towards 1, so
    that a sweep of beta is a sweep of the learning rate too.
    """
    _in_unit_interval("beta", beta, "the teacher's weight in the mixture (GKD, arXiv 2306.13649)")
    log_q, log_p = _log_probs(temperature, vocab_size, student_logits, teacher_logits)
    if beta in (0, 1):
        return kl_of(log_q, log_p) if beta else kl_of(log_p, log_q)
    log_mixture = _log_mixture(log_p, log_q, beta)
    return beta * kl_of(log_p, log_mixture) + (1 - beta) * kl_of(log_q, log_mixture)


def skew_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    alpha: float | Tensor,
    temperature: float = 1.0,
    vocab_size: int | None = None,
) -> Tensor:
    """[N] KL(p || alpha p + (1 - alpha) q), the skew KL of DistiLLM (arXiv 2402.03898).

    ``alpha`` in [0, 1], one number or one per token [N], is the weight of the teacher, the KL's own first
    argument: 0 is the forward KL, 1 is 0 for any student. It is lam of distillm (0.1), whose value leaves
    out the teacher's entropy.
    """
    _in_unit_interval("alpha", alpha, "the teacher's weight in the mixture (DistiLLM, arXiv 2402.03898)")
    log_q, log_p = _log_probs(temperature, vocab_size, student_logits, teacher_logits)
    return kl_of(log_p, _log_mixture(log_p, log_q, alpha))


def skew_reverse_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    alpha: float | Tensor,
    detach_mixture: bool = False,
    temperature: float = 1.0,
    vocab_size: int | None = None,
) -> Tensor:
    """[N] KL(q || (1 - alpha) p + alpha q), the skew reverse KL of DistiLLM (arXiv 2402.03898).

    ``alpha`` in [0, 1], one number or one per token [N], is the weight of the student, the KL's own first
    argument: 0 is the reverse KL, 1 is 0 for any student. It is lam of distillm (0.1). ``detach_mixture`` stops the
    gradient into the mixture, as distillm-2's released code does: the same value, but another gradient.
    """
    _in_unit_interval("alpha", alpha, "the student's weight in the mixture (DistiLLM, arXiv 2402.03898)")
    log_q, log_p = _log_probs(temperature, vocab_size, student_logits, teacher_logits)
    log_mixture = _log_mixture(log_q, log_p, alpha)
    return kl_of(log_q, log_mixture.detach() if detach_mixture else log_mixture)


def total_variation(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0, vocab_size: int | None = None
) -> Tensor:
    """[N] sum |p - q| / 2, in [0, 1] (f-distill, arXiv 2307.15190). Its subgradient where p = q is 0."""
    log_q, log_p = _log_probs(temperature, vocab_size, student_logits, teacher_logits)
    return 0.5 * (log_p.exp() - log_q.exp()).abs().sum(-1)


def adaptive_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    mu: float,
    crossing: bool = True,
    temperature: float = 1.0,
    vocab_size: int | None = None,
) -> Tensor:
    """[N] w KL(p || q) + (1 - w) KL(q || p), with w = g_head / (g_head + g_tail) (AKL, arXiv 2404.02657).

    The head is the smallest set of the teacher's likeliest tokens with a mass of at least ``mu`` in [0, 1] (0: the
    likeliest token alone; 1: all); g is the sum of |p - q| over head or tail. No gradient flows into w.

    ``crossing`` says whether the token that carries the mass past ``mu`` is in the head, as in the paper. The authors'
    code (False) leaves it out, unless it is the likeliest. Tokens as likely as the last one of the head are in it too,
    so that the order of the vocabulary does not matter. Where p = q the value is 0; the authors' code divides 0 by 0.
    TAID's copy applies the mask of the sorted tokens to gaps in vocabulary order and lets gradient into w: another
    objective, not offered here.
    """
    _in_unit_interval("mu", mu, "the teacher's mass in the head (AKL, arXiv 2404.02657)")
    log_q, log_p = _log_probs(temperature, vocab_size, student_logits, teacher_logits)
    with torch.no_grad():
        p = log_p.exp()
        gap = (p - log_q.exp()).abs()
        total = gap.sum(-1)
        head = gap.masked_fill_(p < _least_of_head(p, mu, crossing), 0).sum(-1)
        weight = head / total.clamp(min=torch.finfo(p.dtype).tiny)
    return weight * kl_of(log_p, log_q) + (1 - weight) * kl_of(log_q, log_p)


def alpha_beta(
    student_logits: Tensor,
    teacher_logits: Tensor,
    *,
    alpha: float,
    beta: float,
    temperature: float = 1.0,
    vocab_size: int | None = None,
) -> Tensor:
    """[N] the alpha-beta divergence D(p, q) of ABKD (arXiv 2505.04560; Cichocki et al., Entropy 2011):

        -1 / (alpha beta) sum [p^alpha q^beta - alpha/s p^s - beta/s q^s],   s = alpha + beta

    for any finite ``alpha`` and ``beta``, by continuity where alpha, beta or s is 0. (1, 0) is the forward and (0, 1)
    the reverse KL, (1/2, 1/2) is 4 times the squared Hellinger distance 1 - sum sqrt(p q). ABKD's released code
    divides the limits alpha = 0, beta = 0, s = 0 by beta, alpha, alpha instead of their squares: another value unless
    that is 1, and a negative one if it is negative.

    Finite for logits of any size, -inf included: a log-probability below -1e15 counts as -1e15, and with a negative
    exponent a probability whose powers would pass the range of floats counts as the smallest one whose powers do not
    (1e-27 in fp32 for an exponent of -1).
    """
    if not (math.isfinite(alpha) and math.isfinite(beta)):
        raise BadInput(f"alpha={alpha}, beta={beta} is outside (-inf, inf) (exponents; ABKD, arXiv 2505.04560)")
    log_q, log_p = _log_probs(temperature, vocab_size, student_logits, teacher_logits)
    order = alpha + beta
    growth = max(-alpha, -beta, -order)
    floor = max(-1e15, -0.7 * math.log(torch.finfo(log_p.dtype).max) / growth) if growth > 0 else -1e15
    log_p, log_q = log_p.clamp(min=floor), log_q.clamp(min=floor)
    # A term is r^s [bend(log p - log r) + bend(log q - log r)] for r = p and for r = q; the bend of r itself is 0.
    # The r with the larger power keeps all in range; the form keeps every term >= 0, and exactly 0 where p = q.
    log_r = (torch.maximum if order >= 0 else torch.minimum)(log_p, log_q)
    bends = _bend(log_p - log_r, alpha, beta) + _bend(log_q - log_r, beta, alpha)
    return ((order * log_r).exp() * bends).sum(-1)


def cross_entropy(
    student_logits: Tensor, target: Tensor, *, temperature: float = 1.0, vocab_size: int | None = None
) -> Tensor:
    """[N] -log q(target) for token ids [N], or -sum p log q for teacher logits [N, V].

    The first is the loss of SFT and SeqKD; an id of -100 gives 0 with no gradient. The second is
    KL(p || q) + H(p), so of a distribution with itself it is the entropy.
    """
    if target.dim() == student_logits.dim():
        log_q, log_p = _log_probs(temperature, vocab_size, student_logits, target)
        p = log_p.exp()
        return -(p * torch.where(p > 0, log_q, 0)).sum(-1)
    (log_q,) = _log_probs(temperature, vocab_size, student_logits)
    return torch.nn.functional.nll_loss(log_q, target, reduction="none")


def log_probs(*logits: Tensor, temperature: float = 1.0) -> list[Tensor]:
    """The log-probabilities [N, V] of each of ``logits`` [N, V], for objectives that compute their own sums."""
    return _log_probs(temperature, None, *logits)


def kl_of(log_p: Tensor, log_q: Tensor) -> Tensor:
    """[N] KL(p || q) of log-probabilities [N, S] that both add up to 1, such as those of a part of the vocabulary."""
    from harness.exact_kl import ExactKL  # method cards read this module without torch

    return ExactKL.apply(log_p, log_q)


def with_rest(log_probs: Tensor) -> Tensor:
    """[N, K + 1] log-probabilities [N, K] of some tokens, and of a bucket for the rest of the mass.

    The bucket has at least one ulp of 1, which avoids log 0 if the tokens hold all the mass.
    """
    rest = -torch.expm1(log_probs.logsumexp(-1, keepdim=True).clamp_max(0.0))
    return torch.cat([log_probs, rest.clamp_min(torch.finfo(rest.dtype).eps).log()], -1)


def _log_probs(temperature: float, vocab_size: int | None, *logits: Tensor) -> list[Tensor]:
    """The log-probabilities [N, V] of each of ``logits``, cut to the shared vocabulary, over the temperature."""
    if not 0 < temperature < math.inf:
        raise BadInput(f"temperature={temperature} is outside (0, inf): it divides the logits")
    if len({z.shape[:-1] for z in logits}) > 1:
        shapes = [list(z.shape) for z in logits]
        raise BadInput(f"student and teacher logits, {shapes}, do not describe the same tokens")
    widths = [z.shape[-1] for z in logits]
    if vocab_size is None and len(set(widths)) > 1:
        raise BadInput(f"student and teacher have {widths} logits per token: pass their tokenizer's vocab_size")
    if vocab_size is not None and not 0 < vocab_size <= min(widths):
        raise BadInput(f"vocab_size={vocab_size} is outside [1, {min(widths)}], the logits that a token has")
    dtype = torch.float64 if all(z.dtype == torch.float64 for z in logits) else torch.float32
    cut = [z[..., :vocab_size] for z in logits]
    tempered = cut if temperature == 1 else [z.to(dtype) / temperature for z in cut]
    return [z.log_softmax(-1, dtype=dtype) for z in tempered]


def _log_mixture(log_a: Tensor, log_b: Tensor, weight: float | Tensor) -> Tensor:
    """[N, V] log(weight a + (1 - weight) b), in log space so that neither part underflows."""
    if not isinstance(weight, torch.Tensor) and weight == 0:
        return log_b
    weight = torch.as_tensor(weight, dtype=log_a.dtype, device=log_a.device)[..., None]
    # logaddexp(-inf, -inf) has a gradient of NaN; one finite side is enough to make it 0.
    part_a = (log_a + weight.log()).clamp(min=torch.finfo(log_a.dtype).min)
    return torch.logaddexp(part_a, log_b + (-weight).log1p())


def _least_of_head(p: Tensor, mu: float, crossing: bool) -> Tensor:
    """[N, 1] the smallest probability in the head of each row of p [N, V], see `adaptive_kl`."""
    if mu == 1:  # float64, because rounded float32 sums reach 1 too early
        return torch.zeros_like(p[..., :1])
    likeliest = p.topk(min(HEAD_SEARCH, p.shape[-1])).values
    if likeliest.shape != p.shape and bool((likeliest.sum(-1) <= mu).any()):
        likeliest = p.sort(descending=True).values
    mass = likeliest.cumsum(-1)
    last = (mass < mu).sum(-1) if crossing else (mass <= mu).sum(-1) - 1
    return likeliest.gather(-1, last.clamp(0, likeliest.shape[-1] - 1)[..., None])


def _bend(x: Tensor, a: float, b: float) -> Tensor:
    """(box_cox(x, a + b) - box_cox(x, a)) / b, never negative and x^2 / 2 + O(x^3) for any a and b.

    Of two equal expressions the one that divides by more loses less to rounding, and near 0 more than the limit.
    """
    if max(abs(a + b), abs(b)) < torch.finfo(x.dtype).eps ** 0.5:
        return x.square() / 2
    if abs(a + b) > abs(b):
        return ((a * x).exp() * _box_cox(x, b) - _box_cox(x, a)) / (a + b)
    return (_box_cox(x, a + b) - _box_cox(x, a)) / b


def _box_cox(x: Tensor, order: float) -> Tensor:
    """(e^(order x) - 1) / order, the Box-Cox transform of e^x: x at order 0, e^x - 1 at order 1."""
    return (order * x).expm1() / order if order else x


def _in_unit_interval(name: str, value: float | Tensor, meaning: str) -> None:
    """Raises BadInput unless every value is in [0, 1].

    On a GPU this is not checked: the logarithms of a mixture's weights make the loss of such a token NaN, which stops
    the run.
    """
    values = torch.as_tensor(value)
    if values.device.type != "cpu":
        return
    outside = values[~((values >= 0) & (values <= 1))]
    if len(outside):
        raise BadInput(f"{name}={outside[0].item():g} is outside [0, 1]: {meaning}")
