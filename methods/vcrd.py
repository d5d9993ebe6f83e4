"""Validity-calibrated reasoning distillation, a RECONSTRUCTION (Saadi and Wang 2026, arXiv 2605.04078).

The paper is public; its formula was not available to us, only the abstract. It says: under the same prefix
compare the next steps that student and teacher propose; let their relative local validity modulate the
strength of the update, while the teacher keeps giving its direction. This file is our reading of that:

    L = sum_t w_t D(p_t, q_t) / sum_t w_t,      w_t = g(kappa (v^T_s - v^S_s))      for every token t of step s

p teacher, q student, D the base divergence, g the gate, stop-gradient on w. A step s is a token, a line or a
sentence. Dividing by sum w redistributes the signal between steps without reducing it; w = 1 is the base method.
The teacher's step is scored like the student's and may be invalid too.

likelihood  v^T_s = mean_{t in s} p_t(argmax p_t),  v^S_s = mean_{t in s} p_t(argmax q_t)
            both proposals under the teacher's distribution, no extra model; a doubtful teacher has a low v^T
verifier    v = 1 or 0 as the data's step checker finds the proposed line valid; unknown counts as no gap

If you have the paper, edit this file alone: ten lines carry the reading. The two marked "the gap" and "the weight" in
``weight``, the five of ``_likelihood`` that are v, the one of ``GATES`` that is g, the one of ``BASES`` that is D, and
``note``, which then goes.
"""

from dataclasses import dataclass

import torch

from harness import losses
from harness.errors import BadInput
from harness.method import Method, Needs, Step, Tokens
from harness.options import option
from harness.types import Source

BASES = {
    "forward_kl": lambda s, t, c: losses.forward_kl(s, t, temperature=c.temperature),
    "reverse_kl": lambda s, t, c: losses.reverse_kl(s, t, temperature=c.temperature),
    "jsd": lambda s, t, c: losses.jsd(s, t, beta=c.beta, temperature=c.temperature),
    "skew_kl": lambda s, t, c: losses.skew_kl(s, t, alpha=c.alpha, temperature=c.temperature),
}
GATES = {
    "sigmoid": lambda x: 2 * torch.sigmoid(x),
    "tanh": lambda x: 1 + torch.tanh(x),
    "clip": lambda x: (1 + x).clamp(0, 2),
    "hard": lambda x: (x > 0).float(),
    "one": torch.ones_like,
}


@dataclass(frozen=True)
class Config:
    validity: str = option("likelihood", "estimator of v", choices=("likelihood", "verifier"))
    step: str = option("line", "unit of a step", choices=("token", "line", "sentence"))
    gate: str = option("sigmoid", "g; 'one' is the base method", choices=tuple(GATES))
    kappa: float = option(4.0, "sharpness of the gate", low=0, high=1000)
    divergence: str = option("jsd", "base divergence D", choices=tuple(BASES))
    beta: float = option(0.5, "teacher's weight in the JSD's mixture", low=0, high=1)
    alpha: float = option(0.1, "skew of skew_kl", low=0, high=1)
    temperature: float = option(1.0, "of both distributions in D", low=0.05, high=100)
    on_policy: float = option(0.5, "share of steps on student text", low=0, high=1)
    text: str = option("teacher", "text of the other steps", choices=("teacher", "data"))
    shuffle: bool = option(False, "control: the same weights on shuffled tokens of the optimizer step")


class VCRD(Method):
    """Reconstruction: a divergence weighted by the validity gap between both models' next steps."""

    name, paper, Config = "vcrd", "https://arxiv.org/abs/2605.04078", Config
    reconstruction, without_checker = True, "method.validity=likelihood"
    note = "reconstruction from the public abstract; its formula was not available to us"

    def __init__(self, config=None):
        super().__init__(config)
        if self.config.validity == "verifier" and self.config.step != "line":
            raise BadInput("vcrd: the verifier judges whole lines; set method.step=line with method.validity=verifier")

    @property
    def needs(self) -> Needs:
        c = self.config
        return Needs(teacher="signal", segment=c.step, proposals=c.validity == "verifier" and c.gate != "one")

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.STUDENT if step.draw < self.config.on_policy else Source(self.config.text),)

    def objective(self, tokens: Tokens):
        return BASES[self.config.divergence](tokens.student, tokens.teacher, self.config)

    def weight(self, tokens: Tokens):
        v = tokens.validity if self.config.validity == "verifier" else self._likelihood(tokens)
        # The gap.
        gap = torch.zeros_like(tokens.segment_id, dtype=torch.float32) if v is None else v[:, 0] - v[:, 1]
        # The weight.
        w = GATES[self.config.gate](self.config.kappa * gap.nan_to_num(0.0))
        tokens.metrics.update(validity_gap=gap.nan_to_num(0.0), weight=w)
        return w

    def _likelihood(self, tokens: Tokens):
        """[N, 2] validity of both models' proposals: their mean probability under the teacher over the token's step."""
        p = tokens.teacher.float().softmax(-1)
        proposed = torch.stack([tokens.teacher.argmax(-1), tokens.student.argmax(-1)], -1)
        v = p.gather(-1, proposed)
        # Mean over the tokens of each step, given back to every token of the step.
        steps = tokens.segment_id
        total = torch.zeros(int(steps[-1]) + 1, 2, device=v.device).index_add_(0, steps, v)
        return (total / steps.bincount()[:, None])[steps]

    def card(self):
        c = self.config
        return {
            "divergence": c.divergence,
            "mixture_weight_of_teacher": c.beta,
            "loss_temperature": c.temperature,
            "token_weights": f"{c.validity}/{c.step}/{c.gate}" + ("/shuffled" if c.shuffle else ""),
        }
