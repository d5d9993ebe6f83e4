"""The parts of vcrd's equation that are functions of the two validities: relative validity, gate, and their range.

v [N, 2] is the local validity of the teacher's and of the student's next step, in [0, 1], for every token of the step.

difference  r = v^T - v^S                          log_odds  r = logit v^T - logit v^S
ratio       r = log (v^T + e) / (v^S + e)          cases     r = E[r of the case], each step valid with its own chance

Cases:  teacher alone valid 1;  both, student alone, neither: as set, -1 holds the signal back. Unknown counts as r = 0.
"""

import torch

from harness import losses
from harness.errors import BadInput

ESTIMATORS = {  # of proposed steps, by their names in harness.method.Proposing
    "verifier": "checker",
    "success": "success",
    "step-likelihood": "likelihood",
    "agreement": "agreement",
    "truth": "truth",
}
BASES = {
    "forward_kl": lambda s, t, c: losses.forward_kl(s, t, temperature=c.temperature),
    "reverse_kl": lambda s, t, c: losses.reverse_kl(s, t, temperature=c.temperature),
    "jsd": lambda s, t, c: losses.jsd(s, t, beta=c.beta, temperature=c.temperature),
    "skew_kl": lambda s, t, c: losses.skew_kl(s, t, alpha=c.alpha, temperature=c.temperature),
}
EPSILON = 0.01  # keeps odds and ratios of 0 and 1 finite
GATES = {  # r times kappa to [0, 1]
    "sigmoid": torch.sigmoid,
    "tanh": lambda x: (1 + torch.tanh(x)) / 2,
    "clip": lambda x: (1 + x).clamp(0, 2) / 2,
    "hard": lambda x: (x > 0).float(),
    "one": None,  # every weight is 1
}


def check(c):
    """Raises BadInput for settings that contradict each other."""
    if c.validity == "verifier" and c.step != "line":
        raise BadInput("vcrd: the verifier judges whole lines; set method.step=line with method.validity=verifier")
    if c.own_step and (c.relative != "cases" or c.student_only <= -1):
        raise BadInput(
            "vcrd: with method.own_step a step is taught with the weight of its case, which holds it back: "
            "set method.relative=cases and method.student_only=1"
        )
    if c.floor > c.ceiling:
        raise BadInput(f"vcrd: method.floor={c.floor:g} is above method.ceiling={c.ceiling:g}; exchange them")


def _difference(v, c):
    return v[:, 0] - v[:, 1]


def _log_odds(v, c):
    odds = (v.clamp(EPSILON, 1 - EPSILON)).logit()
    return odds[:, 0] - odds[:, 1]


def _ratio(v, c):
    return ((v[:, 0] + EPSILON) / (v[:, 1] + EPSILON)).log()


def _cases(v, c):
    shares = cases(v)
    return shares @ shares.new_tensor([c.both, 1.0, c.student_only, c.neither])


RELATIVE = {"difference": _difference, "log_odds": _log_odds, "ratio": _ratio, "cases": _cases}


def cases(v):
    """[N, 4] chances that both steps are valid, the teacher's alone, the student's alone, neither."""
    t, s = v.unbind(1)
    return torch.stack([t * s, t * (1 - s), (1 - t) * s, (1 - t) * (1 - s)], 1)


def weight(v, c):
    """[N] the weight of every token from v [N, 2], NaN where unknown, by the settings ``c``."""
    if c.gate == "one":
        return torch.ones_like(v[:, 0])
    r = RELATIVE[c.relative](v, c).nan_to_num(0.0)
    return c.floor + (c.ceiling - c.floor) * GATES[c.gate](c.kappa * r)


def logged(v):
    """The validity gap and the shares of the four cases, [N] each, for the learning curve; 0 where unknown."""
    shares = cases(v).nan_to_num(0.0).unbind(1)
    names = ("both_valid", "teacher_valid", "student_valid", "neither_valid")
    gap = (v[:, 0] - v[:, 1]).nan_to_num(0.0)
    return dict(zip(names, shares, strict=True)) | {"validity_gap": gap}


def in_words(c):
    """How the tokens are weighted, in words: estimator, step and gate, and what is not as in records up to 0.2."""
    words = [c.validity, c.step, c.gate]
    usual = {"relative": "difference", "normaliser": "weights", "scope": "step", "own_step": False}
    words += [f"{key}={getattr(c, key)}" for key, value in usual.items() if getattr(c, key) != value]
    bounds = (c.floor, c.ceiling)
    return "/".join(words if bounds == (0.0, 2.0) else [*words, f"{c.floor:g} to {c.ceiling:g}"])


def step_mean(values, steps):
    """[N, ...] the mean of the values [N, ...] over the tokens of each step, given back to every token of it."""
    # A place for as many steps as there are tokens: a device would have to be asked how many there are.
    steps = steps - steps[0]
    total = torch.zeros_like(values).index_add_(0, steps, values)
    count = values.new_zeros(len(values)).index_add_(0, steps, values.new_ones(len(values)))
    return (total / count.reshape(-1, *[1] * (values.dim() - 1)))[steps]


def running_mean(values, position):
    """[N] the mean of the values [N] of a text up to each token; ``position`` counts from 0 in each text."""
    place = torch.arange(len(values), device=values.device)
    start = torch.where(position == 0, place, 0).cummax(0).values
    total = values.double().cumsum(0)
    count = place - start + 1
    return ((total - (total - values)[start]) / count).to(values.dtype)
