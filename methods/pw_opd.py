"""Position-weighted on-policy distillation (PW-OPSD 2026, https://arxiv.org/abs/2605.21606, code SaFo-Lab/PW-OPSD).

    L = mean over texts of (1/|y|) sum_t w_t sum_v min(p_t(v) log(p_t(v) / q_t(v)), clip)
    w_t = w_min + (1 - w_min) sigmoid((f_t - center) / slope),      f_t = (t - 1/2) / |y|,   t = 1..|y|

p teacher, q student, both at temperature 1.1, on the student's own text. Early tokens, where ways part, count for less
than late ones (iw_opd advises the opposite). Each entry of the vocabulary is clipped before the sum, and nothing is
divided by the weights. The rollouts' temperature of 1.1 is the recipe's [rollout].

The teacher is the recipe's, under the student's prompt. The paper's own is the initial student with the reference
solution in its prompt, which is ``pw_opsd``.

pw_opd@linear   what this package called pw_opd up to 0.2, a reading of the abstract: a weight that doubles linearly, a
                cap on the token's whole divergence, a mean that is divided by the weights, temperature 1
"""

from dataclasses import dataclass

from harness.methods._self_teaching import clipped_forward_kl, late_weight

from harness.losses import forward_kl
from harness.method import Method, Needs, Step, Tokens
from harness.options import option
from harness.types import Source

CODE = "PW-OPSD, released code"


@dataclass(frozen=True)
class Config:
    rise: float = option(1.0, "linear: extra weight of the last token", low=0, high=100)
    cap: float = option(10.0, "linear: largest divergence of a token, nats", low=0, high=1e6)
    temperature: float = option(1.1, "of both distributions", low=0.05, high=100, source=f"{CODE}: 1.1")
    shuffle: bool = option(False, "control: the same weights on shuffled tokens of the optimizer step")
    shape: str = option(
        "sigmoid", "of the weight over the text", choices=("sigmoid", "linear"), source=CODE, before="linear"
    )
    least: float = option(0.25, "w_min", low=0, high=1, source=f"{CODE}: 0.25", before=0.25)
    center: float = option(0.3, "share of the text at half weight", low=0, high=1, source=f"{CODE}: 0.3", before=0.3)
    slope: float = option(0.1, "of the sigmoid", low=0.001, high=100, source=f"{CODE}: 0.1", before=0.1)
    clip: float = option(0.05, "largest entry of the KL, nats", low=0, high=1e6, source=f"{CODE}: 0.05", before=0.05)


class PWOPD(Method):
    """Forward KL on the student's samples, clipped per entry, with larger weights on late tokens."""

    name, paper, Config = "pw_opd", "https://arxiv.org/abs/2605.21606", Config
    variants = {"linear": {"shape": "linear", "temperature": 1.0}}

    @property
    def needs(self) -> Needs:
        # A clip per entry means something else where one entry is a bucket of many.
        published = self.config.shape == "sigmoid"
        return Needs(teacher="signal", exact=published, gate=published)

    @property
    def reduction(self) -> str:
        return "sequence" if self.config.shape == "sigmoid" else "token"

    def sources(self, step: Step) -> tuple[Source, ...]:
        return (Source.STUDENT,)

    def objective(self, tokens: Tokens):
        c = self.config
        if c.shape == "linear":
            return forward_kl(tokens.student, tokens.teacher, temperature=c.temperature).clamp(max=c.cap)
        tokens.metrics["weight"] = tokens.gate
        return tokens.gate * clipped_forward_kl(tokens.student, tokens.teacher, clip=c.clip, temperature=c.temperature)

    def weight(self, tokens: Tokens):
        c = self.config
        if c.shape == "sigmoid":
            return late_weight(tokens, least=c.least, center=c.center, slope=c.slope)
        place = tokens.position / (tokens.length - 1).clamp_min(1)
        tokens.metrics["weight"] = 1 + c.rise * place
        return tokens.metrics["weight"]

    def card(self):
        c = self.config
        sigmoid = c.shape == "sigmoid"
        return {
            "divergence": f"forward KL, at most {c.clip:g} an entry" if sigmoid else f"forward KL, at most {c.cap:g}",
            "loss_temperature": c.temperature,
            "token_weights": (
                f"sigmoid of the position from {c.least:g}, not divided by"
                if sigmoid
                else f"rising with position, rise {c.rise:g}"
            )
            + ("/shuffled" if c.shuffle else ""),
        }
