"""Position-weighted on-policy self-distillation (PW-OPSD 2026, https://arxiv.org/abs/2605.21606, SaFo-Lab/PW-OPSD).

    L = mean over texts of (1/|y|) sum_t w_t sum_v min(p_t(v) log(p_t(v) / q_t(v)), clip),      y ~ q(. | x)
    w_t = w_min + (1 - w_min) sigmoid((f_t - center) / slope),      f_t = (t - 1/2) / |y|
    p_t = q_0(. | x, s, y_<t)

q student, q_0 the student before training, frozen, with the reference solution s in its prompt; both at temperature
1.1. Each entry of the vocabulary is clipped before the sum, and nothing is divided by the weights. ``pw_opd`` is the
same objective with a larger teacher. The wording of the teacher's prompt is ours (``template``).

The released code has a second, more aggressive setting, whose numbers were not available to us.
"""

from dataclasses import dataclass

from harness.methods._self_teaching import SOLUTION, SelfTaught, clipped_forward_kl, late_weight

from harness.method import Asking, Needs, Tokens
from harness.options import option

CODE = "PW-OPSD, released code"


@dataclass(frozen=True)
class Config:
    least: float = option(0.25, "w_min", low=0, high=1, source=f"{CODE}: 0.25")
    center: float = option(0.3, "share of the text at half weight", low=0, high=1, source=f"{CODE}: 0.3")
    slope: float = option(0.1, "of the sigmoid", low=0.001, high=100, source=f"{CODE}: 0.1")
    clip: float = option(0.05, "largest entry of the KL, nats", low=0, high=1e6, source=f"{CODE}: 0.05")
    temperature: float = option(1.1, "of both distributions", low=0.05, high=100, source=f"{CODE}: 1.1")
    template: str = option(SOLUTION, "the teacher's prompt over the fields of a row", source="wording ours")
    shuffle: bool = option(False, "control: the same weights on shuffled tokens of the optimizer step")


class PWOPSD(SelfTaught):
    """Self-distillation from a prompt with the solution, with larger weights on late tokens."""

    name, paper, Config = "pw_opsd", "https://arxiv.org/abs/2605.21606", Config
    reduction = "sequence"

    @property
    def needs(self) -> Needs:
        # A clip per entry means something else where one entry is a bucket of many.
        return Needs(teacher="signal", exact=True, gate=True, asking=Asking(self.config.template, "initial"))

    def weight(self, tokens: Tokens):
        c = self.config
        return late_weight(tokens, least=c.least, center=c.center, slope=c.slope)

    def objective(self, tokens: Tokens):
        c = self.config
        tokens.metrics["weight"] = tokens.gate
        return tokens.gate * clipped_forward_kl(tokens.student, tokens.teacher, clip=c.clip, temperature=c.temperature)

    def card(self):
        c = self.config
        return {
            "divergence": f"forward KL, at most {c.clip:g} an entry",
            "loss_temperature": c.temperature,
            "token_weights": f"sigmoid of the position from {c.least:g}, not divided by"
            + ("/shuffled" if c.shuffle else ""),
            "teacher_prompt": "own prompt, initial",
        }
